"""Rows of the causal tables against counting by hand, and how often their intervals hold, by simulation."""

from types import SimpleNamespace

import numpy as np

from jaxconcepts.intervals import mean_interval, share_interval, wilson
from jaxconcepts.studies.causal import rows
from jaxconcepts.studies.causal.edited_pass import Answered, Asked


def part(concept, queries, right, as_other=None, known=None):
    """Prompts of a concept about `queries`, answered."""
    count = len(queries)
    prompts = [SimpleNamespace(concept=concept, query=SimpleNamespace(input=query)) for query in queries]
    other = ["x" if yes else "" for yes in (np.zeros(count, bool) if known is None else known)]
    answered = Answered([""] * count, np.array(right, bool), np.array(right if as_other is None else as_other, bool))
    return Asked(prompts, [[]] * count, other, np.zeros((count, 2, 1), int), np.zeros((count, 2), int)), answered


def test_shares_are_counted_by_concept_and_replicate_and_ends_over_all_of_them():
    first = part("AND", list("abab"), [1, 1, 0, 1], [0, 0, 1, 0], [0, 1, 1, 1])
    second = part("OR", list("abcd"), [0, 0, 0, 1])
    asked, answered = zip(first, second, strict=True)
    table = rows.frame(rows.of_answers(asked, answered, 2, {"AND": 3, "OR": 5}, condition="task vector"))
    counted = table.filter(metric="accuracy").select("concept", "layer", "replicate", "value").rows()
    assert counted == [("AND", 3, 0, 1.0), ("AND", 3, 1, 0.5), ("OR", 5, 0, 0.0), ("OR", 5, 1, 0.5)]
    low, high = share_interval(np.array([1, 1, 0, 1, 0, 0, 0, 1]), np.repeat([0, 1], 4), np.array(list("abababcd")))
    for end, expected in (("low", low), ("high", high)):
        ends = table.filter(metric=f"accuracy_{end}").select("concept", "layer", "value").rows()
        assert [row[:2] for row in ends] == [("AND", 3), ("OR", 5), (None, None)]
        np.testing.assert_allclose([row[2] for row in ends], expected)
    # Of three prompts of AND the other answer is known.
    other = table.filter(metric="as_other").select("concept", "replicate", "value").rows()
    assert other == [("AND", 0, 0.0), ("AND", 1, 0.5)]
    assert set(table["condition"]) == {"task vector"}


def test_the_interval_covers_where_nearly_all_answers_are_right():
    """Of 100 prompts, 99 % right: a third of samples have no wrong answer, and Student's interval of replicates is a
    point there. Wilson's holds the true share in 92.1 % of samples (binomial: where at most two are wrong)."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        asked, answered = part("AND", list(map(str, range(100))), rng.random(100) < 0.99)
        table = rows.frame(rows.of_answers([asked], [answered], 20))
        low, high = (table.filter(metric=f"accuracy_{end}", concept="AND")["value"].item() for end in ("low", "high"))
        of_replicates = mean_interval(table.filter(metric="accuracy")["value"].to_numpy())
        held.append([ends[0] <= 0.99 <= ends[1] for ends in ((low, high), of_replicates)])
    of_prompts, of_replicates = np.mean(held, 0)
    assert abs(of_prompts - 0.921) < 0.04 and of_replicates < 0.7
    np.testing.assert_allclose((low, high), wilson(np.mean(answered.correct), 100))
