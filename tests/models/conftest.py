"""Reference models for the parity tests: tiny, random, and with weights so large that every feature matters."""

from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxconcepts.models import language, pretrained


class Reference(NamedTuple):
    """What transformers computes in float32 (eager attention), and the noise of doing so.

    model, params: ours, loaded from the folder that transformers wrote. theirs: the transformers model.
    states: [L + 1] arrays [B, T, d], before the final norm; logits [B, T, V].
    noise: the largest relative error of transformers' own float32 layers and logits against its float64 ones.
    """

    folder: Any
    theirs: Any
    model: Any
    params: Any
    tokens: np.ndarray
    states: list
    logits: np.ndarray
    noise: float

    def errors(self, model=None, params=None):
        """Relative errors of our layers and, last, of our logits; `model`, `params` instead of the loaded ones."""
        states, logits = language.hidden_states(
            model or self.model, params or self.params, self.tokens, at="all", with_logits=True
        )
        return [relative_error(a, b) for a, b in zip([*states, logits], [*self.states, self.logits], strict=True)]


FINAL_NORMS = ("model.norm", "transformer.ln_f", "gpt_neox.final_layer_norm", "backbone.norm_f")


def relative_error(ours, reference) -> float:
    """Largest difference over the largest entry of the reference."""
    reference = np.asarray(reference, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - reference).max() / np.abs(reference).max())


def forward(theirs, tokens):
    """Every layer of the stream before the final norm, and the logits, as NumPy."""
    import torch

    base, last = theirs.base_model, []
    blocks = base.h if hasattr(base, "h") else base.layers
    hook = blocks[-1].register_forward_hook(lambda _, __, output: last.append(output))
    with torch.no_grad():
        found = theirs(torch.tensor(tokens), output_hidden_states=True)
    hook.remove()
    if theirs.config.model_type == "mamba2":  # whose hidden states begin after the first block
        embedded = base.get_input_embeddings()(torch.tensor(tokens)).detach()
        return [embedded.numpy(), *(state.numpy() for state in found.hidden_states[:-1])], found.logits.numpy()
    return [*(state.numpy() for state in found.hidden_states[:-1]), last[0].numpy()], found.logits.numpy()


def spread_weights(theirs):
    """The transformers model with weights so large that every feature matters."""
    import torch

    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if weight.ndim == 1:
                # Norms around their neutral value, biases around 0.
                weight.add_(0.3 * torch.randn_like(weight))
            elif "embed" in name and "out" not in name or "wte" in name or "wpe" in name:
                weight.normal_(std=0.2)
            else:
                weight.normal_(std=2.0 / weight.shape[-1] ** 0.5)
    return theirs


def build(config_name, folder, length=300, **sizes) -> Reference:
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    transformers = pytest.importorskip("transformers", reason="the reference implementation is transformers'")
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(
        attn_implementation="eager", bos_token_id=None, eos_token_id=None, pad_token_id=None, **sizes
    )
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    spread_weights(theirs)
    with torch.no_grad():
        tokens = np.random.default_rng(0).integers(0, config.vocab_size, (2, length))
        final = next((m for n, m in theirs.named_modules() if n.endswith(FINAL_NORMS)), None)
        largest = np.abs(forward(theirs, tokens)[1]).max()
        if getattr(final, "weight", None) is None:
            theirs.lm_head.weight.mul_(10 / largest)
        elif not config.model_type.startswith("gemma"):
            # Gemma's norms hold scale - 1 and its logits are capped: those are left as they come.
            for weight in final.parameters():
                weight.mul_(10 / largest)
    states, logits = forward(theirs, tokens)
    exact_states, exact_logits = forward(theirs.double(), tokens)
    theirs.float()
    noise = max(map(relative_error, [*states, logits], [*exact_states, exact_logits]))
    theirs.save_pretrained(folder)
    model, params = pretrained.load_pretrained(folder)
    return Reference(folder, theirs, model, params, tokens, states, logits, noise)


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """reference(config_name, **sizes) -> Reference, each built once."""
    built = {}

    def get(config_name, **sizes):
        key = repr((config_name, sizes))
        if key not in built:
            built[key] = build(config_name, tmp_path_factory.mktemp("checkpoint"), **sizes)
        return built[key]

    return get
