"""The in-context study on public facts, end to end on a tiny checkpoint."""

from dataclasses import replace

import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.prompts import facts
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.studies.icl import study as icl

CONFIG = icl.IclConfig(
    families=("facts",), shots=(1,), variants=("rule",), prompts=4, per_draw=2, draws=2, k=1, permutations=5,
    batch_size=20, multiple=128,
)  # fmt: skip


def test_families_of_facts_are_known_by_name():
    made = icl_config.families(replace(CONFIG, families=("facts", "fact_pairs"), seed=3))
    assert made["facts"].test == facts.family(3).test and made["fact_pairs"].test == facts.pairs(3).test
    with pytest.raises(ValueError, match="families must be among bitwise, pos, facts, fact_pairs, or .*got 'fact'"):
        icl_config.families(replace(CONFIG, families=("fact",)))


@pytest.mark.slow
def test_facts_are_asked_of_a_checkpoint(facts_checkpoint, tmp_path):
    run = icl.run(CONFIG, [icl.Checkpoint(0, str(facts_checkpoint.folder))], tmp_path / "run")
    table = store.results(run, "icl", "metrics")
    accuracy = table.filter(pl.col("metric") == "accuracy", pl.col("concept").is_not_null())
    assert accuracy["concept"].sort().to_list() == list(range(5)) and accuracy["value"].is_between(0, 1).all()
    assert store.config(run / "icl")["labels"]["facts"] == ["Next", "Previous", "Number", "Parity", "Number, parity"]
