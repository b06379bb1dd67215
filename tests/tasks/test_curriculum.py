"""The curriculum's numbers at single steps, and what they do to a batch."""

import jax
import numpy as np
import pytest

from jaxconcepts.tasks import regression
from jaxconcepts.tasks.curriculum import Curriculum, at_step

CONFIG = regression.RegressionConfig(num_concepts=3, dim=20, rank=3, num_pairs=41)
TASK = regression.hparams(CONFIG, concept_weights=[1.0, 2.0, 4.0])


@pytest.mark.parametrize("step", [0, 1, 1999, 10**6])
def test_the_defaults_leave_the_task_as_it_is(step):
    for got, given in zip(jax.tree.leaves(at_step(Curriculum(), TASK, step)), jax.tree.leaves(TASK), strict=True):
        np.testing.assert_array_equal(got, given)


@pytest.mark.parametrize(
    ("step", "dim", "pairs"),
    [(0, 5, 11), (1999, 5, 11), (2000, 6, 13), (4500, 7, 15), (29_999, 19, 39), (30_000, 20, 41), (10**6, 20, 41)],
)
def test_dimensions_and_pairs_grow_as_garg_et_al_have_them(step, dim, pairs):
    grown = Curriculum(dim_start=5.0, pairs_start=11.0)
    now = at_step(grown, TASK, step)
    assert (now.active_dim, now.active_pairs) == (dim, pairs)


def test_a_batch_has_the_dimensions_and_pairs_of_its_step():
    grown = Curriculum(dim_start=5.0, dim_interval=10.0, pairs_start=11.0, pairs_interval=10.0)
    batch = jax.jit(lambda step: regression.sample(CONFIG, at_step(grown, TASK, step), jax.random.key(0), 4))(25)
    assert np.all(batch.inputs[..., :7] != 0) and not np.any(batch.inputs[..., 7:])
    assert batch.pair_mask.tolist() == [1.0] * 15 + [0.0] * 26


@pytest.mark.parametrize(
    ("step", "tilt"), [(0, 1.0), (150, 0.5), (300, 0.0), (600, -1.0), (750, -0.5), (900, 0.0), (5000, 0.0)]
)
def test_concepts_get_their_turn_and_level_out(step, tilt):
    """Frequencies ratio ** (-k tilt): from 1 to -1 at two thirds of the steps, then back to the task's own."""
    now = at_step(Curriculum(concept_ratio=3.0, concept_steps=900.0), TASK, step)
    expected = np.array([1.0, 2.0, 4.0]) * 3.0 ** (-tilt * np.arange(3))
    np.testing.assert_allclose(now.concept_weights, expected, rtol=2e-6)
