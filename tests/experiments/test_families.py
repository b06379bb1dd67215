"""Any family of decoders on regression and on token tasks, chosen by the config alone."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts import experiments
from jaxconcepts.models import continuous, language
from jaxconcepts.runs import points
from jaxconcepts.studies.patching import study as patching
from jaxconcepts.training import train

SMALL = {"layers": 2, "heads": 2, "kv_heads": 1, "width": 16, "mlp_width": 16, "state": 4, "chunk": 4, "groups": 1}
TASK = {
    "regression": {"dim": 4, "rank": 1, "num_concepts": 3, "num_pairs": 5},
    "tests/example_experiment.py:Copying": {"pairs": 3, "vocab_size": 8, "shifts": 2},
}
COPYING = "tests/example_experiment.py:Copying"


def point(name, family, **changed):
    config = experiments.find(name).default_config({"experiment": name, "model": {"family": family}})
    config["task"] |= TASK[name]
    config["model"] |= {field: value for field, value in SMALL.items() if field in config["model"]}
    config["train"] |= {"batch_size": 16, "steps": 30, "learning_rate": 3e-3}
    config["measure"] |= {"per_concept": 24, "cd_per_concept": 24, "neighbours": 3}
    return points.make_point(json.loads(json.dumps(points.apply(config, changed))))


@pytest.mark.parametrize("family", ["llama", pytest.param("gpt_neox", marks=pytest.mark.slow)])
def test_regression_is_learned_and_measured(family, compiles_fast):
    of = point("regression", family, **{"measure.metrics": ["loss", "cd", "references", "head_ablation"]})
    experiment, numbers = of.experiment, of.numbers
    assert isinstance(experiment.model, continuous.Continuous) and family == experiment.model.MODEL_TYPE
    assert experiment.model.context == 10 and experiment.model.input_dim == 4
    made = train.make_train(experiment)
    state = jax.jit(made.init)(numbers, None)
    held_out = jax.jit(experiment.held_out)(numbers, None)
    measure = jax.jit(experiment.measure)
    before = measure(state.params, held_out)
    state, _ = jax.jit(made.chunk)(state, numbers, None, jnp.int32(30))
    after = measure(state.params, held_out)
    assert after["loss"].values.mean() < before["loss"].values.mean()
    assert after["cd"].values.shape == (2, 3, 3)
    errors = []
    for kernel in (state.params["blocks"]["out"]["kernel"].at[1, :8].set(0), state.params["blocks"]["out"]["kernel"]):
        blocks = state.params["blocks"]
        params = state.params | {"blocks": blocks | {"out": blocks["out"] | {"kernel": kernel}}}
        errors.append(float(measure(params, held_out)["loss"].values.mean()))
    changes = np.asarray(after["head_ablation"].values)
    assert changes.shape == (3, 2) and not changes[0].any()
    assert changes[2, 0] == pytest.approx(errors[0] - errors[1], rel=1e-3, abs=1e-6)
    run = patching.make_patching(experiment.task, experiment.model, patching.PatchConfig(per_concept=2))
    assert isinstance(run, patching.Patching)


def test_a_gpt2_s_runs_keep_their_names():
    gpt2 = point("regression", "gpt2")
    assert "family" not in experiments.find("regression").stored(gpt2.config)["model"]
    bare = {**gpt2.config, "model": {k: v for k, v in gpt2.config["model"].items() if k != "family"}}
    assert points.make_point(bare).hash == gpt2.hash != point("regression", "llama").hash
    assert "model.positions" not in point("regression", "llama").hyper_parameters()


@pytest.mark.parametrize("family", ["gpt_neox", "mamba2", "qwen3"])
def test_a_token_task_is_learned(family, compiles_fast):
    of = point(COPYING, family)
    experiment, numbers = of.experiment, of.numbers
    made = train.make_train(experiment)
    state = jax.jit(made.init)(numbers, None)
    held_out = jax.jit(experiment.held_out)(numbers, None)
    measure = jax.jit(experiment.measure)
    before = measure(state.params, held_out)["loss"].values
    state, _ = jax.jit(made.chunk)(state, numbers, None, jnp.int32(30))
    measured = measure(state.params, held_out)
    assert measured["loss"].values < before and family == experiment.model.MODEL_TYPE
    tokens = np.asarray(held_out.batch.tokens)
    logits = np.asarray(language.logits(experiment.model, state.params, tokens, at="all"), np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    right = [log_probs[i, t, tokens[i, t + 1]] for i in range(24) for t in (0, 2, 4)]
    assert measured["loss"].values == pytest.approx(-np.mean(right), rel=1e-5)


def test_what_a_family_lacks_is_said():
    with pytest.raises(ValueError, match="model.family must be one of .*llama.*, got 'lama'"):
        point("regression", "lama")
    with pytest.raises(ValueError, match="model.width must be an even multiple of model.heads, got 10"):
        point("regression", "llama", **{"model.width": 10, "model.heads": 4})
    with pytest.raises(ValueError, match="head_ablation needs heads, and a mamba2 model has none"):
        point("regression", "mamba2", **{"measure.metrics": ["head_ablation"]})
    of = point("regression", "mamba2")
    with pytest.raises(ValueError, match="patching ablates heads, and a mamba2 model has none"):
        patching.make_patching(of.experiment.task, of.experiment.model, patching.PatchConfig())
