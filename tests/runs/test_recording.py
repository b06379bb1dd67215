"""The runs table of a sweep: parts that one line of polars reads, whatever is None in some points."""

import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.runs import loop, points, recording
from jaxconcepts.tasks import regression


@pytest.mark.parametrize("field", ["task.masks", "task.concept_weights"])
def test_parts_go_together_where_a_field_is_none_in_some_points(tmp_path, field):
    base = loop.default_config()
    for name in ("num_seeds", "run"):
        del base[name]
    masks = regression.default_masks(regression.RegressionConfig()).tolist()
    value = masks if field == "task.masks" else [1.0] * len(masks)
    made = [points.make_point(points.apply(base, {field: given, "seed": i})) for i, given in enumerate((None, value))]
    with store.open_run(tmp_path, {}) as run:
        for name, pack in (("a", made[:1]), ("b", made[1:])):
            run.restore(name, None)
            run.write_runs(name, recording.runs_table(pack, 0, [-1], False))
    table = pl.read_parquet(tmp_path / "runs" / "*.parquet")
    assert dict(table.schema) == dict(store.runs(tmp_path).schema) and pl.Null not in table.dtypes
    assert table[field].is_null().to_list() == [True, False]
