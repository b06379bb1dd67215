"""A tiny Llama with examples, and arms to tune it, for the tests of fine-tuning."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconcepts.models import llama, pretrained
from jaxconcepts.training import answer_loss, freezing, lora, train, tuning
from jaxconcepts.training.optimizers import OptimizerNumbers


@pytest.fixture(scope="module", autouse=True)
def fast(unoptimized):
    """All tests of training compile fast."""


class Made(NamedTuple):
    """init(base, hparams), chunk(state, hparams, base, data, steps, since=0), and `tuning.Tuning`."""

    init: Any
    chunk: Any
    with_tuned: Any
    merged: Any


class Tiny(NamedTuple):
    """folder: the checkpoint, in Hugging Face's layout. data: examples of mixed lengths. lora: a setting of LoRA."""

    model: Any
    params: Any
    folder: Any
    data: answer_loss.Examples
    lora = lora.LoraConfig(rank=2, alpha=6.0, dropout=0.0, targets=("q_proj", "v", "down", "o_proj"))
    batch_size = 4

    def loss(self, params, data, seed, step):
        return answer_loss.answer_loss(self.model, params, answer_loss.batch_of_step(data, self.batch_size, seed, step))

    def make(self, steps=5, schedule="constant", compiled=True, **fields):
        """(TuneConfig, Made), its parts compiled or not."""
        fields = {"batch_size": self.batch_size, "lora": self.lora} | fields
        config = tuning.TuneConfig(steps=steps, schedule=schedule, **fields)
        run = train.make_train(self.experiment(config))
        wrap = jax.jit if compiled else lambda function: function

        def init(base, hparams):
            return run.init(hparams, {"base": base, "data": None})

        def chunk(state, hparams, base, data, steps, since=0):
            state, reported = run.chunk(state, hparams, {"base": base, "data": data}, steps, since)
            return state, reported["train_loss"]

        made = tuning.make_tuning(config, self.model)
        return config, Made(wrap(init), wrap(chunk), made.with_tuned, made.merged)

    def experiment(self, config):
        """The tuning as an experiment over the base and the data."""
        return tuning.Tuned(self.model, config, self.loss, tuning.Shared(self.params, self.data))

    def numbers(self, config, arm, seed=0, learning_rate=3e-3, weight_decay=0.01, clip_norm=np.inf):
        """The numbers of an arm, given by name or by patterns."""
        patterns = freezing.arm(arm, self.model.layers) if isinstance(arm, str) else arm
        masks = tuning.arm_masks(config, self.model, self.params, patterns)
        rest = (learning_rate, weight_decay, 0.9, 0.999, 1e-8, clip_norm)
        return tuning.TuneHParams(np.uint32(seed), OptimizerNumbers(*map(np.float32, rest)), masks)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    model = llama.LlamaConfig(
        vocab_size=40, width=16, layers=3, heads=4, kv_heads=2, head_dim=4, mlp_width=24, context=32, rope_scaling=None
    )
    rng = np.random.default_rng(0)
    # Large enough that attention and the feed-forward part both matter to the logits, which reach about 5.
    normal = lambda path, leaf: ("norm" in str(path)) + rng.normal(0, 0.2, leaf.shape).astype(np.float32)  # noqa: E731
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(normal, shapes))
    folder = tmp_path_factory.mktemp("base")
    pretrained.save_pretrained(model, params, folder)
    draw = lambda low, high: rng.integers(0, model.vocab_size, rng.integers(low, high)).tolist()  # noqa: E731
    data = answer_loss.examples(model, [draw(5, 12) for _ in range(22)], [draw(1, 4) for _ in range(22)])
    return Tiny(model, params, folder, data)
