"""Tables come back as written, and what is out of the schema is refused."""

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from jaxconcepts import store

CONFIG = {"task": {"dim": 8, "bases": "orthogonal"}, "steps": [1, 2]}


def rows(step, run="r0", value=0.5):
    return pl.DataFrame({"run": [run], "step": [step], "metric": ["loss"], "value": [value]})


def run_rows(step, run="r0", **fields):
    row = {"run": run, "point": "p", "status": "running", "seed": 3, "step": step, **fields}
    return pl.DataFrame({name: [value] for name, value in row.items()})


def test_tables_come_back_in_the_schema(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        run.restore("a", None)
        run.write_metrics("a", 5, rows(5).with_columns(layer=pl.lit(2), token=pl.lit("y"), value=pl.lit(1)))
        run.write_metrics("a", 7, rows(7))
        hidden = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
        run.write_hidden("a", 7, hidden, np.arange(4) % 2, ["r0", "r1"])
        run.write_runs("a", run_rows(5, **{"train.learning_rate": 0.1}))
        run.write_runs("a", run_rows(7, status="diverged", diverged_at=6, **{"train.learning_rate": 0.1}))
        run.write_runs("b", run_rows(7, run="r9", **{"train.learning_rate": 1, "task.dim": 8}))
    table = store.metrics(tmp_path)
    assert table.schema == store.METRICS
    none = [None] * 5
    assert table.rows() == [("r0", 5, "loss", 2, "y", *none[:3], 1.0), ("r0", 7, "loss", *none, 0.5)]
    (snapshot,) = store.hidden(tmp_path)
    np.testing.assert_array_equal(snapshot.hidden, hidden.astype(np.float32))
    assert (snapshot.step, snapshot.run, snapshot.concepts.tolist()) == (7, ["r0", "r1"], [0, 1, 0, 1])
    assert store.runs(tmp_path).rows() == [
        ("r0", "p", "diverged", 3, 7, 6, 0.1, None),
        ("r9", "p", "running", 3, 7, None, 1.0, 8),
    ]
    assert pl.read_parquet(f"{tmp_path}/metrics/*.parquet").equals(table)  # One line of polars, no store.


def test_a_new_run_reads_as_empty_tables(tmp_path):
    with store.open_run(tmp_path, CONFIG):
        assert store.metrics(tmp_path).schema == store.METRICS
        assert store.runs(tmp_path).schema == store.RUNS
        assert list(store.hidden(tmp_path)) == []
        assert store.checkpoints(tmp_path, "a") == []


@pytest.mark.parametrize(
    "frame, message",
    [
        (rows(5).with_columns(loss=1.0), "columns must be among run, step, .*, got loss"),
        (rows(5).drop("value"), "column value is missing, got run, step, metric"),
        (rows(5).with_columns(value=pl.lit(None, pl.Float64)), "column value must have no nulls, got 1"),
        (rows(5).with_columns(layer=1.5), "column layer must be Int32, got Float64"),
        (rows(5).with_columns(run=7), "column run must be String, got Int32"),
        (rows(6), "part at step 5 must not be past it, got step 6"),
    ],
)
def test_metrics_out_of_the_schema_are_refused(tmp_path, frame, message):
    with store.open_run(tmp_path, CONFIG) as run:
        run.restore("a", None)
        with pytest.raises(ValueError, match=message):
            run.write_metrics("a", 5, frame)


def test_other_bad_input_is_refused(tmp_path):
    with store.open_run(tmp_path, CONFIG) as run:
        with pytest.raises(ValueError, match="restore must come before anything is written for pack a"):
            run.write_metrics("a", 5, rows(5))
        run.restore("a", None)
        with pytest.raises(ValueError, match="status must be one of running, done, diverged, got .'lost'"):
            run.write_runs("a", run_rows(5, status="lost"))
        with pytest.raises(ValueError, match="run must name each run once"):
            run.write_runs("a", pl.concat([run_rows(5)] * 2))
        with pytest.raises(ValueError, match=r"got hidden \(1, 2, 3\)"):
            run.write_hidden("a", 5, np.zeros((1, 2, 3)), np.zeros(3), ["r0"])
        with pytest.raises(ValueError, match="pack must consist of letters, digits, -, _ and %, got 'a.b'"):
            run.write_metrics("a.b", 5, rows(5))
        with pytest.raises(ValueError, match="step must be from 0 to 999 999 999, got -1"):
            run.write_metrics("a", -1, rows(-1))
        with pytest.raises(ValueError, match="leaves must be jax arrays, got ndarray at x.y"):
            run.save("a", 5, {"x": {"y": np.zeros(2)}})
        with pytest.raises(ValueError, match="leaves must have distinct paths"):
            run.save("a", 5, {"x": {"y": jnp.zeros(2)}, "x.y": jnp.zeros(2)})
    with pytest.raises(ValueError, match=f"workdir must hold a run, but there is no {tmp_path}/none/config.json"):
        store.metrics(tmp_path / "none")
    with pytest.raises(ValueError, match="config field task.dim must be a JSON value, got 1j"):
        store.open_run(tmp_path / "c", {"task": {"dim": 1j}}).__enter__()
    for field, options in {"writer": {"writer": (2, 2)}, "keep": {"keep": 0}}.items():
        with pytest.raises(ValueError, match=f"^{field} must be"):
            store.open_run(tmp_path, CONFIG, **options).__enter__()
