"""Evaluators on arrays made by hand."""

from types import SimpleNamespace

import numpy as np

from jaxconcepts.experiments import evaluators
from jaxconcepts.metrics import decodability, statistics
from jaxconcepts.training.experiment import Concept


def test_cd_is_of_other_groups_and_its_interval_beside_it():
    rng = np.random.default_rng(0)
    labels, group = np.repeat([0, 1], 20), np.tile(np.arange(20), 2)
    states = {"number": (rng.normal(size=(2, 3, 40, 4)) + labels[:, None]).astype(np.float32)}
    concept = Concept(labels, 2, ("x", "y"), group=group)
    held_out = SimpleNamespace(concepts={"number": concept}, settings=SimpleNamespace(neighbours=5))
    cd = evaluators.cd(states, None, held_out)["cd/number"].values
    options = {"ties": "split", "group": group}
    expected = decodability.concept_decodability_per_concept(states["number"], labels, 5, **options)
    np.testing.assert_allclose(cd, expected, atol=1e-6)
    measured = evaluators.cd_interval(states, None, held_out)
    low, high = (measured[f"cd_{end}/number"] for end in ("low", "high"))
    assert low.axes == ("token", "layer") and low.names == (("token", ("x", "y")),)
    ends = statistics.decodability_interval(states["number"], labels, expected, 5, group=group)
    np.testing.assert_allclose([low.values, high.values], [end[..., -1] for end in ends], atol=1e-6)
    assert np.all((low.values < cd.mean(-1)) & (cd.mean(-1) < high.values))
