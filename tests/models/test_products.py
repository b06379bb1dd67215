"""Products of bfloat16: rounded once, with gradients of their type, and asked for in float32 on a CPU alone."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxconcepts.models import layers


def once_rounded(exact, value):
    """Whether every number is the exact sum rounded to bfloat16's 8 bits, with float32's rounding of the sum beside."""
    room = 2.0**-8 * np.abs(exact) + 1e-4
    return np.all(np.abs(np.asarray(value, np.float64) - exact) <= room)


def test_a_product_and_its_gradients_are_sums_rounded_once():
    rng = np.random.default_rng(0)
    x, kernel, gradient = (
        jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((40, 96), (96, 24), (40, 24))
    )
    out, back = jax.vjp(layers.product, x, kernel)
    to_x, to_kernel = back(gradient)
    assert {a.dtype.name for a in (out, to_x, to_kernel)} == {"bfloat16"}
    x, kernel, gradient = (np.asarray(a, np.float64) for a in (x, kernel, gradient))
    assert once_rounded(x @ kernel, out)
    assert once_rounded(gradient @ kernel.T, to_x)
    assert once_rounded(x.T @ gradient, to_kernel)


def test_only_a_cpu_is_asked_for_float32():
    factors = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((40, 96), (96, 24))]
    lowered = {
        platform: jax.jit(layers.product).trace(*factors).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu", "cuda")
    }
    summed = {platform: "tensor<40x24xf32>" in text for platform, text in lowered.items()}
    assert summed == {"cpu": True, "tpu": False, "cuda": False}


def test_float32_stays_as_it_was():
    x, kernel = jnp.ones((3, 5)), jnp.ones((5, 2))
    text = jax.jit(layers.product).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()
    assert "bf16" not in text and np.array_equal(layers.product(x, kernel), np.full((3, 2), 5.0))
