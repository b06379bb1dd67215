"""Choosing how runs go by measuring: what is compared, what is chosen, and that a tuned sweep gives the same tables."""

import json
import logging
import runpy
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxconcepts import store
from jaxconcepts.runs import packs, points
from jaxconcepts.runs.packs import Layout
from jaxconcepts.sweeps import tuning
from jaxconcepts.sweeps.sweep import run_sweep

pytestmark = pytest.mark.usefixtures("compiles_fast")

FILE = runpy.run_path(str(Path(__file__).with_name("small_sweep.py")))
BASE = json.loads(json.dumps(FILE["get_config"]().to_dict()))
for name in ("run", "num_seeds"):
    BASE.pop(name)
GROUP = [point for point in points.expand(BASE, FILE["get_sweep"]()) if point.experiment.task.rank == 1]


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.INFO, "jaxconcepts")
    return caplog


def deep(layers, unroll=0):
    """A run like the group's, with so many blocks."""
    config = json.loads(json.dumps(BASE))
    config["model"].update(layers=layers, unroll=unroll)
    return points.make_point(config)


@pytest.mark.parametrize(
    ("layout", "point", "expected"),
    [
        (Layout(), deep(3), [("map", "all"), ("map", "none"), ("vmap", "all"), ("vmap", "none")]),
        (Layout(how="vmap"), deep(3), [("vmap", "all"), ("vmap", "none")]),
        (Layout(unroll="none"), deep(3), [("map", "none"), ("vmap", "none")]),
        # One block, or a number of the config's own, leaves nothing to choose.
        (Layout(), deep(1), [("map", "auto"), ("vmap", "auto")]),
        (Layout(how="map"), deep(3, unroll=3), [("map", "auto")]),
    ],
)
def test_what_is_left_open_is_compared(layout, point, expected):
    assert [(c.how, c.unroll) for c in tuning.candidates(layout, point)] == expected


@pytest.mark.parametrize("layers", [1, 3])
def test_unroll_changes_the_program(layers):
    def scans(unroll):
        program = packs.make_program(deep(layers).experiment, 1, Layout("map", 1, unroll), jax.devices()[:1])
        stacked = packs.abstract_numbers(program, GROUP[0].numbers)
        state = packs.abstract_state(program, stacked, None)
        return str(program.chunk.trace(state, stacked, None, packs.step_count(1)).jaxpr)

    assert scans("all") == scans("auto")
    assert ("unroll=3" in scans("all"), "unroll=3" in scans("none")) == (layers == 3, False)


def test_the_fastest_that_fits_is_chosen_and_said(monkeypatch, log):
    rates = {("map", "all"): 10.0, ("map", "none"): 30.0, ("vmap", "all"): 20.0}

    def measure(chosen, layout):
        if layout == Layout("vmap", 1, "none"):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return rates[layout.how, layout.unroll], 1.0

    monkeypatch.setattr(tuning, "run_steps_per_second", measure)
    assert tuning.tune([deep(3)], Layout(), 0, 10**9) == Layout("map", 1, "none")
    assert "vmap), blocks scanned: does not fit (RESOURCE_EXHAUSTED" in log.text
    assert "tuning: chose one after another (map), blocks scanned" in log.text
    assert "--config.run.how=map --config.run.unroll=none" in log.text


def test_where_nothing_fits_the_layout_stays():
    assert tuning.tune([deep(3)], Layout(), 0, memory=100) == Layout()


@pytest.mark.slow
def test_a_tuned_sweep_gives_the_same_tables(tmp_path, monkeypatch, log):
    monkeypatch.setattr(tuning, "TIMED_SECONDS", 0.01)
    values = []
    for name, tune in (("plain", False), ("tuned", True)):
        with store.open_run(tmp_path / name, BASE) as run:
            programs = run_sweep(GROUP[:2], run, Layout(), tune=tune)
        frame = store.metrics(tmp_path / name)
        values.append(frame.sort(frame.columns[:-1])["value"])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-5, atol=1e-6)
    assert log.text.count("run-steps/s with 2 runs") == 2 and log.text.count("tuning: chose ") == 1
    assert programs.layout == replace(Layout(), how=programs.layout.how) != Layout()
