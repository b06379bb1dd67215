"""A made-up run directory with plausible curves: three seeds that leave the plateau, one concept after another."""

import json

import numpy as np
import polars as pl
import pytest

SCHEMA = {
    "run": pl.Utf8,
    "step": pl.Int64,
    "metric": pl.Utf8,
    "layer": pl.Int32,
    "token": pl.Utf8,
    "concept": pl.Int32,
    "position": pl.Int32,
    "value": pl.Float64,
}
LEVELS = {"zero": 4.0, "ridge": 1.74, "bayes": 0.73, "oracle": 0.53}


def write_workdir(
    path, *, seeds=3, layers=6, measurements=30, concepts=4, pairs=12, rank=4, points=200, width=24, last=20000
):
    """Writes a run directory in the store's format; returns it."""
    rng = np.random.default_rng(0)
    names = [f"r{seed}" for seed in range(seeds)]
    steps = [0]
    if measurements > 1:
        steps = np.unique(np.append(0, np.geomspace(100, last, measurements - 1).astype(int))).tolist()
    rows = []

    def add(run, step, metric, value, layer=None, token=None, concept=None, position=None):
        rows.append((run, int(step), metric, layer, token, concept, position, float(value)))

    decay = np.exp(-np.arange(pairs) / 2.5)
    profile = {"zero": np.ones(pairs) * 4, "ridge": np.linspace(4, 0.9, pairs)}
    profile["bayes"], profile["oracle"] = 0.012 + 4 * decay, 0.011 + 4 * np.exp(-np.arange(pairs) / 1.3)
    for seed, run in enumerate(names):
        leave = last * (0.12 + 0.16 * np.roll(np.arange(concepts), seed) + 0.03 * seed)  # step at which each splits off
        for step in steps:
            learned = 1 / (1 + np.exp(-(step - leave) / (0.03 * last)))
            start = np.exp(-step / (0.02 * last))
            base = start * profile["zero"] + (1 - start) * profile["ridge"]
            loss = (1 - learned)[:, None] * base + learned[:, None] * profile["bayes"] * 1.05
            loss = loss * np.exp(rng.normal(0, 0.02, loss.shape))
            for concept in (None, *range(concepts)):
                own = loss.mean(0) if concept is None else loss[concept]
                add(run, step, "loss", own.mean(), concept=concept)
                for position in range(pairs):
                    add(run, step, "loss", own[position], concept=concept, position=position)
            if step > 0:
                add(run, step, "train_loss", loss.mean() * 1.02)
            for name, values in profile.items():
                gap = np.abs(loss.mean(0) - values) + 0.02
                add(run, step, f"distance_{name}", gap.mean())
                if step == steps[0]:
                    for concept in (None, *range(concepts)):
                        add(run, step, f"loss_{name}", values.mean(), concept=concept)
                        for position in range(pairs):
                            add(run, step, f"loss_{name}", values[position], concept=concept, position=position)
            for layer in range(layers + 1):
                rise = 1 / (1 + np.exp(-(layer - 2.5) * 1.4)) * (1 - 0.12 * (layer == layers))
                for token in ("x", "y"):
                    own = 1 / concepts + (1 - 1 / concepts) * learned * rise * (0.98 if token == "x" else 0.9)
                    own = np.clip(own + rng.normal(0, 0.02, concepts), 0, 1)
                    add(run, step, "cd", own.mean(), layer=layer, token=token)
                    add(run, step, "cd_low", own.mean() - 0.03, layer=layer, token=token)
                    add(run, step, "cd_high", own.mean() + 0.03, layer=layer, token=token)
                    for concept in range(concepts):
                        add(run, step, "cd", own[concept], layer=layer, token=token, concept=concept)
            add(run, step, "cd_points", points)

    config = {
        "task": {"num_concepts": concepts, "dim": concepts * rank, "rank": rank, "num_pairs": pairs, "families": []},
        "model": {"num_layers": layers, "width": width},
        "train": {"learning_rate": 1e-3, "steps": last},
    }
    for folder in ("runs", "metrics", "hidden"):
        (path / folder).mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "provenance.json").write_text(json.dumps({"jax": "0.10.2", "device": "cpu", "command": "train <made up>"}))
    table = pl.DataFrame(
        {
            "run": names,
            "point": ["abc"] * seeds,
            "status": ["done"] * seeds,
            "seed": list(range(seeds)),
            "step": [steps[-1]] * seeds,
            "diverged_at": [None] * seeds,
            "task.rank": [rank] * seeds,
            "task.num_concepts": [concepts] * seeds,
        },
        schema_overrides={"diverged_at": pl.Int64, "seed": pl.Int64, "step": pl.Int64},
    )
    table.write_parquet(path / "runs" / "pack0.parquet")
    metrics = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    metrics.write_parquet(path / "metrics" / f"pack0.{steps[-1]:09d}.parquet")

    labels = np.arange(points) % concepts
    centres = rng.normal(size=(concepts, width))
    for step in [
        steps[i] for i in sorted({0, len(steps) // 2, len(steps) - 4, len(steps) - 1} & set(range(len(steps))))
    ]:
        noise = rng.normal(size=(seeds, layers + 1, points, width))
        strength = 1.6 * (step / last) * np.arange(layers + 1)[None, :, None, None] / layers
        hidden = noise + strength * centres[labels]
        arrays = {"hidden": hidden.astype(np.float32), "concepts": labels, "run": np.array(names), "step": step}
        np.savez(path / "hidden" / f"pack0.{step:09d}.npz", **arrays)
    return path


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
    """A finished run directory: 3 seeds, 6 layers, 30 measurements, 4 concepts."""
    return write_workdir(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def make_workdir(tmp_path_factory):
    """Writes a run directory of other sizes; keyword arguments as `write_workdir`."""
    return lambda **sizes: write_workdir(tmp_path_factory.mktemp("made") / "run", **sizes)
