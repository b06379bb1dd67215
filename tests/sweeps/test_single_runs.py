"""Points drawn from a sweep, packed with others or alone: the same tables. On sweep_small, with fewer steps."""

import json
import random
import runpy
from pathlib import Path

import numpy as np
import pytest

from jaxconcepts import store
from jaxconcepts.runs import loop as execution
from jaxconcepts.runs import packs, points
from jaxconcepts.runs.programs import Programs
from jaxconcepts.sweeps.sweep import run_sweep

pytestmark = pytest.mark.usefixtures("compiles_fast")

FILE = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "sweep_small.py"))
DRAWN, PACKED = 20, 60


@pytest.mark.slow
def test_twenty_points_drawn_at_random_equal_their_single_runs(tmp_path):
    config = json.loads(json.dumps(FILE["get_config"]().to_dict()))
    for name in ("run", "num_seeds"):
        config.pop(name)
    config["train"].update(steps=40)
    config["measure"].update(count=3, per_concept=12, cd_per_concept=12)
    everything = points.expand(config, FILE["get_sweep"]())
    assert len(everything) >= 1000
    rng = random.Random(0)
    packed = rng.sample(everything, PACKED)
    drawn = rng.sample(packed, DRAWN)
    with store.open_run(tmp_path / "packed", config) as run:
        programs = run_sweep(packed, run, packs.Layout(), checkpoint_seconds=1e9)
    assert programs.compilations == len(points.group(packed)) == 3
    singly = Programs(packs.Layout())
    with store.open_run(tmp_path / "single", config) as run:
        for point in drawn:
            execution.run_pack(point.run, [point], run, packs.Layout(), 1e9, programs=singly)
    for point in drawn:
        one, other = (rows(tmp_path / name, point.run) for name in ("single", "packed"))
        assert one.drop("value").equals(other.drop("value")) and len(one) > 20
        # Compiled for another number of runs, so summed in another order; after 40 steps at rates up to 0.1.
        np.testing.assert_allclose(one["value"], other["value"], rtol=1e-4, atol=1e-4, err_msg=point.run)


def rows(workdir, run):
    frame = store.metrics(workdir)
    frame = frame.filter(frame["run"] == run)
    return frame.sort(frame.columns[:-1])
