"""Values that are valid each, and nonsense together or in float32; configs that name what cannot be looked up."""

from pathlib import Path

import pytest

import jaxconcepts as jc

ROOT = Path(__file__).parents[2]
REGRESSION = ROOT / "tests" / "small_train.py"
GRAMMAR = ROOT / "tests" / "experiments" / "small_grammar.py"
BIOGRAPHIES = ROOT / "tests" / "experiments" / "small_biographies.py"
REASONING = f"{ROOT / 'configs' / 'reasoning.py'}:smoke"

CASES = [
    # 1 - 1e-12 is 1 in float32, and 1e-40 is 0: the training would diverge, or learn nothing, and say "done".
    (REGRESSION, "train.b1=0.999999999999", "train.b1 must be a number of at least 0 and below 1, rounded to float32"),
    (REGRESSION, "train.b2=0.999999999999", "train.b2 must be a number of at least 0 and below 1, rounded to float32"),
    (REGRESSION, "train.clip_norm=1e-40", "train.clip_norm must be a positive number, rounded to float32 too"),
    (REGRESSION, "curriculum.dim_interval=1e-40", "curriculum.dim_interval must be a positive number, rounded"),
    (REGRESSION, "model.eps=1e-60", "model.eps must be a positive number, rounded to float32 too, got 1e-60"),
    (BIOGRAPHIES, "task.qa_share=0.9999999999", "task.qa_share must be a number of at least 0 and below 1, rounded"),
    (GRAMMAR, "measure.temperatures=1e-50", "measure.temperatures must be positive numbers, got (1e-50,)"),
    (REGRESSION, "task.concept_weights=1e-45,1e-45", "concept_weights must be 0 or at least 1.18e-38"),
    (REGRESSION, "task.concept_weights=3e38,3e38", "concept_weights must be 0 or at least 1.18e-38 and have a sum"),
    (REGRESSION, "curriculum.concept_ratio=1e38", "curriculum.concept_ratio must be from 1e-30 to 1e+30 with 2 conc"),
    # A model that reads what it is to predict.
    (REGRESSION, "model.causal=false", "model.causal must be true"),
    # No point could have most votes for its own concept.
    (REGRESSION, "measure.neighbours=47", "measure.neighbours must be at most 46, since a concept has 24 points"),
    (
        REGRESSION,
        "task.num_concepts=1 measure.metrics=loss,cd_interval",
        "measure.metrics: cd_interval needs two concepts, got task.num_concepts = 1",
    ),
    (REGRESSION, "task.num_concepts=1 measure.metrics=probe", "measure.metrics: probe needs two concepts"),
    (
        REGRESSION,
        "measure.per_concept=2 measure.cd_per_concept=2 measure.neighbours=1 measure.metrics=probe",
        "measure.cd_per_concept must give probe 5 points over all concepts, got 4",
    ),
    (REGRESSION, "task.bases=given task.masks=((1,0,0),(1,0,0,0))", "masks must have shape (2, 4), got rows of 3, 4"),
    (GRAMMAR, "measure.points=3 measure.metrics=cd", "measure.neighbours must be below measure.points = 3, got 3"),
    (GRAMMAR, "measure.points=true", "measure.points must be an integer of at least 2, got 'true'"),
    # Their rows would have one name.
    (GRAMMAR, "measure.temperatures=1,1", "measure.temperatures must differ in six digits"),
    (GRAMMAR, "measure.temperatures=0.5,0.50000001", "measure.temperatures must differ in six digits"),
    (GRAMMAR, "task.grammar=cfg3b@\u00b2", "the root must be one of the symbols 22"),
    (GRAMMAR, "task.window=1000000000", "task.window must be an integer from 4 to 65536"),
    (BIOGRAPHIES, "task.window=1000000000", "task.window must be an integer from 8 to 65536"),
    (REASONING, "task.window=1000000000", "task.window must be an integer from 8 to 65536"),
    (BIOGRAPHIES, "task.celebrity_variant=x", "task.celebrity_variant must be made of single, multiM"),
    (
        BIOGRAPHIES,
        "measure.per_concept=1000 measure.folds=100",
        "measure.folds must be at most 24, as 24 people are measured, got 100",
    ),
    (
        BIOGRAPHIES,
        "measure.per_concept=1000 measure.neighbours=100 measure.metrics=cd",
        "measure.neighbours must be at most 23, as 24 people are measured, got 100",
    ),
    # Such a solution has some 1e8 wrong names.
    (REASONING, "task.retry=0.99999999", "task.retry must be a number from 0 to 0.99, got 0.99999999"),
    (REASONING, "task.beyond=20", "task.beyond is 20, which adds up to 22 operations, but task.operations must be at"),
    (REASONING, "measure.metrics=loss,cd", "measure.metrics: cd needs concepts at one place of every row"),
    (REASONING, "measure.hidden_count=2", "measure.hidden_count must be 0 for reasoning, got 2"),
]


@pytest.mark.parametrize(("config", "changed", "message"), CASES, ids=[case[1] for case in CASES])
def test_values_that_do_not_go_together_are_named(refused, config, changed, message):
    assert message in refused("train", f"--config={config}", *[f"--config.{field}" for field in changed.split()])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("config['experiment'] = ['regression']", "experiment must be one of biographies, grammar"),
        ("config['experiment'] = {}", "experiment must be one of biographies, grammar"),
        ("config['model']['family'] = ['gpt2']", "model.family must be one of gemma2"),
        ("config['model']['family'] = {}", "model.family must be one of gemma2"),
    ],
)
def test_a_name_that_is_no_text_is_named(refused, tmp_path, line, message):
    (tmp_path / "mine.py").write_text(
        f"from jaxconcepts.runs.loop import default_config\n"
        f"def get_config():\n    config = default_config()\n    {line}\n    return config\n"
    )
    assert message in refused("train", f"--config={tmp_path}/mine.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {'a': states['concpt'].mean()}", "line 2 of mine.py: KeyError: 'concpt'"),
        ("return None", "must give a dict of Named arrays, got NoneType"),
        ("return {'a': float(outputs.mean())}", "line 2 of mine.py: ConcretizationTypeError"),
    ],
)
def test_an_evaluator_of_ones_own_is_tried_before_anything_is_written(refused, tmp_path, body, message):
    (tmp_path / "mine.py").write_text(f"def mine(states, outputs, held_out):\n    {body}\n")
    metrics = f"--config.measure.metrics=loss,{tmp_path}/mine.py:mine"
    assert message in refused("train", f"--config={REGRESSION}", metrics)


def test_a_sweep_tries_the_evaluators_of_every_point(refused, tmp_path):
    """One that only the second point asks for, by the command and by the API."""
    (tmp_path / "mine.py").write_text("def mine(states, outputs, held_out):\n    return {'a': states['concpt']}\n")
    metrics, message = [["loss"], ["loss", f"{tmp_path}/mine.py:mine"]], "line 2 of mine.py: KeyError: 'concpt'"
    (tmp_path / "config.py").write_text(
        f"from jaxconcepts.runs.loop import default_config\n\ndef get_config():\n    return default_config()\n\n"
        f"def get_sweep():\n    return [{{'measure.metrics': tuple(names)}} for names in {metrics}]\n"
    )
    assert message in refused("sweep", f"--config={tmp_path}/config.py")
    with pytest.raises(ValueError, match=message):
        jc.sweep({}, [{"measure.metrics": names} for names in metrics], tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        jc.train({"measure": {"metrics": metrics[1]}}, tmp_path / "run")
    assert not (tmp_path / "run").exists()
