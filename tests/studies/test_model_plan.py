"""Plans for extraction: the memory of a compiled program, operations by hand, and what does not divide."""

import dataclasses

import jax
import pytest

from jaxconcepts.models import llama
from jaxconcepts.studies import model_plan

MODEL = llama.LlamaConfig(
    vocab_size=30, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=24, context=64, tied=True
)  # fmt: skip


def test_a_plan_holds_the_parameters_and_counts_the_operations():
    plan = model_plan.plan(MODEL, jax.devices()[:1], batch=4, length=32, model_axis=1)
    # Parameters in, [layers + 1, batch, width] out, and what is between.
    assert plan.memory > 4 * MODEL.num_params() + 4 * 3 * 4 * 16
    assert plan.limit > plan.memory and plan.fits
    weights = 2 * (16 * 32 + 2 * 16 * 16 + 32 * 16 + 3 * 16 * 24)
    assert plan.flops == 4 * 32 * (2 * weights + 2 * 4 * 32 * 32)
    assert plan.tokens_per_second is None


def test_it_does_not_fit_beyond_the_limit():
    plan = model_plan.ModelPlan(memory=11, limit=10, flops=1.0, tokens_per_second=None)
    assert not plan.fits
    assert dataclasses.replace(plan, limit=None).fits is None


@pytest.mark.parametrize(
    ("batch", "model_axis", "message"),
    [(4, 3, "model_axis must divide the 2 devices, got 3"), (3, 1, "multiple of the data axis of 2, got 3")],
)
def test_what_does_not_divide_is_refused(batch, model_axis, message):
    with pytest.raises(ValueError, match=message):
        model_plan.plan(MODEL, [jax.devices()[0]] * 2, batch, 32, model_axis)
