"""Watch concepts form inside transformers: the public names, each imported when it is first used."""

from importlib import import_module

_WHERE = {
    "config": "jaxconcepts.api",
    "load": "jaxconcepts.api",
    "open_run": "jaxconcepts.api",
    "sweep": "jaxconcepts.api",
    "train": "jaxconcepts.api",
    "Search": "jaxconcepts.sweeps",
    "choice": "jaxconcepts.sweeps",
    "integers": "jaxconcepts.sweeps",
    "log_uniform": "jaxconcepts.sweeps",
    "product": "jaxconcepts.sweeps",
    "sample": "jaxconcepts.sweeps",
    "uniform": "jaxconcepts.sweeps",
    "zip_": "jaxconcepts.sweeps",
    "Quantity": "jaxconcepts.quantity",
    "concept_decodability": "jaxconcepts.metrics.decodability",
    "pairwise_decodability": "jaxconcepts.metrics.decodability",
    "Edits": "jaxconcepts.models.residual",
    "generate": "jaxconcepts.models.language",
    "hidden_states": "jaxconcepts.models.language",
    "logits": "jaxconcepts.models.language",
    "load_pretrained": "jaxconcepts.models.pretrained",
    "save_pretrained": "jaxconcepts.models.pretrained",
}

__version__ = "0.1.0"
__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'jaxconcepts' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__():
    return [*globals(), *_WHERE]
