"""The fine-tuning study, end to end on a tiny random model and on a training of seconds."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest

from jaxconcepts import store
from jaxconcepts.experiments.regression import Regression
from jaxconcepts.figures import paper
from jaxconcepts.figures.finetuning import panels as drawn
from jaxconcepts.models import language, pretrained
from jaxconcepts.prompts import render
from jaxconcepts.runs import loop, packs, points
from jaxconcepts.runs.preemption import PreemptedError
from jaxconcepts.studies.finetuning import study as finetuning
from jaxconcepts.studies.icl.config import BitwiseConfig


def fields(**overrides):
    found = finetuning.default_fields()
    found["arms"] = ("first-1", "last-1", "none")
    found["samples"], found["shots"] = 60, 1
    found["tune"] |= {"steps": 30, "batch_size": 6, "learning_rate": 0.02}
    found["lora"] |= {"rank": 4, "dropout": 0.0, "targets": ("q_proj", "v", "down")}
    found["measure"] |= {
        "families": ("bitwise",), "shots": (1,), "prompts": 24, "per_draw": 12, "draws": 2, "k": 3, "permutations": 4,
        "batch_size": 24, "bitwise": dataclasses.asdict(BitwiseConfig(3, 60, 40)),
    }  # fmt: skip
    found["merged"] = ("last-1",)
    for name, value in overrides.items():
        section, _, field = name.rpartition("__")
        (found[section] if section else found)[field] = value
    return found


@pytest.fixture(scope="module")
def tuned(checkpoint, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tuned")
    finetuning.finetune(finetuning.from_fields(fields()), str(checkpoint.folder), workdir)
    return workdir


def cd(table, arm):
    rows = table.filter(pl.col("arm") == arm, pl.col("metric") == "cd", pl.col("concept").is_not_null())
    return rows.sort("layer", "concept")["value"].to_numpy().reshape(3, -1)


@pytest.mark.slow
def test_states_below_the_tuned_block_keep_their_cd_and_the_arm_of_none_keeps_all(tuned):
    table = store.results(tuned, "finetuning", "metrics")
    assert set(table["arm"]) == {"before", "first-1", "last-1", "none"}
    assert dict(table.select("arm", "tuned_blocks").unique().iter_rows()) == {
        "before": "[]", "none": "[]", "first-1": "[1]", "last-1": "[2]"
    }  # fmt: skip
    before = cd(table, "before")
    np.testing.assert_array_equal(cd(table, "none"), before)
    np.testing.assert_array_equal(cd(table, "last-1")[:2], before[:2])
    np.testing.assert_array_equal(cd(table, "first-1")[:1], before[:1])
    assert (cd(table, "first-1")[1] != before[1]).any() and (cd(table, "last-1")[2] != before[2]).any()
    mean = table.filter(pl.col("metric") == "accuracy", pl.col("concept").is_null())
    accuracy = dict(mean.select("arm", "value").iter_rows())
    assert accuracy["none"] == accuracy["before"]


@pytest.mark.slow
def test_what_is_tuned_learns_and_what_is_not_does_not(tuned):
    runs = store.runs(tuned)
    assert runs["status"].to_list() == ["done"] * 3
    losses = store.metrics(tuned).filter(pl.col("metric") == "train_loss").sort("step")
    by_arm = {run: part["value"].to_numpy() for (run,), part in losses.group_by("run")}
    assert by_arm["bitwise-first-1-seed0"][-1] < by_arm["bitwise-none-seed0"][-1] - 0.1


@pytest.mark.slow
def test_merged_weights_and_adapters_are_one_model_also_to_peft(tuned, checkpoint):
    assert {path.name for path in (tuned / "adapters").iterdir()} == {"bitwise-first-1-seed0", "bitwise-last-1-seed0"}
    model, merged = pretrained.load_pretrained(tuned / "models" / "bitwise-last-1-seed0")
    tokens = np.arange(24).reshape(2, 12)
    ours = np.asarray(language.logits(model, merged, tokens))
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    peft = pytest.importorskip("peft", reason="the reference implementation is peft")
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        base = AutoModelForCausalLM.from_pretrained(checkpoint.folder, attn_implementation="eager")
        theirs = peft.PeftModel.from_pretrained(base, tuned / "adapters" / "bitwise-last-1-seed0").eval()
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    assert np.abs(ours - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(np.asarray(language.logits(checkpoint.model, checkpoint.params, tokens)) - expected).max() > 0.01
    # Blocks that the arm leaves alone keep their bits.
    for path, leaf in jax.tree_util.tree_leaves_with_path(merged):
        before = checkpoint.params
        for key in path:
            before = before[key.key]
        if path[0].key == "blocks":
            np.testing.assert_array_equal(leaf[0], before[0])
        else:
            np.testing.assert_array_equal(leaf, before)


def test_only_the_last_answer_and_what_ends_it_are_learned(checkpoint, bits3):
    config = finetuning.from_fields(fields())
    data = finetuning.training_examples(config, checkpoint.model, bits3, checkpoint.tokenizer)
    assert data.tokens.shape[0] == 60
    prompt = render.prompts(bits3, "NAND", 1, 10, seed=0, split="train")[3]
    row = 13  # ten prompts a concept, in the order of the concepts
    length = int(data.positions[row, 0]) + 1
    text = checkpoint.tokenizer.decode(data.tokens[row, 1:length], clean_up_tokenization_spaces=False)
    answer = data.targets[row][data.weights[row] > 0]
    assert text == prompt.text
    assert checkpoint.tokenizer.decode(answer, clean_up_tokenization_spaces=False) == f" {prompt.answer}\n\n"


@pytest.mark.slow
def test_a_second_call_computes_nothing_and_another_config_is_refused(tuned, checkpoint):
    before = {path: path.stat().st_mtime_ns for path in (tuned / "finetuning" / "metrics").iterdir()}
    steps = store.checkpoints(tuned, "bitwise")
    assert steps[-1] == 30
    finetuning.finetune(finetuning.from_fields(fields(merged=("last-1",))), str(checkpoint.folder), tuned)
    assert {path: path.stat().st_mtime_ns for path in (tuned / "finetuning" / "metrics").iterdir()} == before
    assert store.checkpoints(tuned, "bitwise") == steps
    with pytest.raises(ValueError, match="another config.*tune.steps: was 30, now 31"):
        finetuning.finetune(finetuning.from_fields(fields(tune__steps=31)), str(checkpoint.folder), tuned)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_to_the_same_adapters(tuned, checkpoint, tmp_path, monkeypatch):
    """Stopped by a signal at the first look, with the arms of one call."""
    config = finetuning.from_fields(fields())
    with monkeypatch.context() as patched:
        patched.setattr(loop, "stop_requested", lambda: contextlib.nullcontext([15]))
        with pytest.raises(PreemptedError, match="stopped by a signal at step 1;"):
            finetuning.finetune(config, str(checkpoint.folder), tmp_path)
    assert store.checkpoints(tmp_path, "bitwise")[-1] == 1  # Within a row of the training loss.
    assert store.runs(tmp_path)["status"].to_list() == ["running"] * 3
    finetuning.finetune(config, str(checkpoint.folder), tmp_path)
    for path in (tuned / "adapters").glob("*/*"):
        assert (tmp_path / "adapters" / path.relative_to(tuned / "adapters")).read_bytes() == path.read_bytes()
    losses = [store.metrics(root).sort("run", "step")["value"].to_list() for root in (tuned, tmp_path)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_the_figures_shade_what_is_tuned(tuned):
    table = store.results(tuned, "finetuning", "metrics")
    figures = {section.name: section.figure for section in drawn.sections(table, store.config(tuned))}
    assert set(figures) == {"finetuning_cd_bitwise_1_plain", "finetuning_gain_bitwise_1_plain"}
    panels = figures["finetuning_cd_bitwise_1_plain"].axes
    shades = [{p.get_gid(): p.get_x() for p in axis.patches if p.get_gid()} for axis in panels]
    assert shades == [{"tuned/first-1/1": 0.5}, {"tuned/last-1/2": 1.5}, {}]
    lines = {line.get_gid(): line.get_ydata() for line in panels[1].lines}
    # The mean over concepts is drawn as it was stored, in float32.
    np.testing.assert_allclose(lines["cd/last-1/0"], cd(table, "last-1")[:, :-1].mean(1), rtol=1e-6)
    np.testing.assert_allclose(lines["cd/before/last-1"], cd(table, "before")[:, :-1].mean(1), rtol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"arms": ("first-3",)}, "arm 'first-3': the model has 2 blocks"),
        (
            {"arms": ("mine",), "patterns": {"mine": [["blocks/5/.*", "train"], [".*", "train"]]}},
            "arm 'mine': pattern",
        ),
        ({"arms": ("mine",), "patterns": {"mine": [["blocks/.*", "train"]]}}, "arm 'mine': every parameter must be"),
        ({"lora__targets": ("c_attn",)}, "arm 'first-1': lora.targets: llama has no projection 'c_attn'; it has q"),
        ({"samples": 4}, "samples must be at least tune.batch_size = 6"),
        ({"merged": ("all",)}, "merged must name arms"),
        ({"patterns": {"mine": [[".*", "train"]]}}, "patterns must be of arms"),
        ({"tune__learning_rate": -1.0}, "tune.learning_rate must be a number of at least 0"),
        ({"seeds": (0, 0)}, "seeds must name at least one, each once"),
        ({"measure__k": 12}, "k must be below per_draw"),
        ({"run__how": "pmap"}, "run.how must be one of auto, vmap, map, got 'pmap'"),
        ({"tune__stepss": 1}, "unknown config field tune.stepss"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(checkpoint, tmp_path, overrides, message):
    given = fields(**{"arms": ("first-1",), "merged": ()} | overrides)
    with pytest.raises(ValueError, match=message):
        finetuning.finetune(finetuning.from_fields(given), str(checkpoint.folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rank_of_0_is_full_fine_tuning():
    assert finetuning.from_fields(fields(lora__rank=0)).tune.lora is None


@pytest.fixture
def training(tmp_path):
    """The run directory of a training of two runs, at its first weights."""
    config = small_config()
    runs = [points.make_point(config | {"seed": seed}) for seed in (0, 1)]
    program = packs.make_program(runs[0].experiment, 2, packs.Layout())
    with store.open_run(tmp_path / "run", config | {"num_seeds": 2}) as run:
        run.restore("train", None)
        run.save("train", 7, program.init(packs.stack_numbers(program, [point.numbers for point in runs]), None))
    return tmp_path / "run"


def small_config():
    config = Regression.default_config()
    config["task"].update(dim=4, num_concepts=2, rank=1, num_pairs=2)
    config["model"].update(layers=2, heads=1, width=4)
    config["train"].update(steps=24, batch_size=4)
    config["measure"].update(per_concept=24, cd_per_concept=24, neighbours=3)
    return config


@pytest.mark.slow
def test_the_command_tunes_a_training_of_the_synthetic_task(training, tmp_path):
    """The second run is tuned, fully, and its untouched arm measures as before."""
    command = [sys.executable, "-m", "jaxconcepts", "finetune", "--config=configs/finetune.py"]
    command += [f"--model={training}", f"--workdir={tmp_path / 'out'}"]
    command += ["--config.arms=last-1,none", "--config.tune.steps=20", "--config.tune.learning_rate=0.1"]
    command += ["--config.synthetic.run=seed1", "--config.synthetic.per_concept=24", "--config.lora.rank=0"]
    for more, code, said in (
        (["--config.synthetic.step=8"], 2, "step must be one of the checkpoints 7, got 8"),
        (["--config.arms=last-9"], 2, "arm 'last-9': the model has 2 blocks"),
        ([], 0, "CD by layer"),
    ):
        done = subprocess.run([*command, *more], capture_output=True, text=True, cwd=Path(__file__).parents[2])
        assert done.returncode == code and said in done.stdout + done.stderr, done.stdout + done.stderr
    table = store.results(tmp_path / "out", "finetuning", "metrics")
    values = {
        (arm, metric, layer): part["value"].item()
        for (arm, metric, layer), part in table.filter(pl.col("concept").is_null()).group_by("arm", "metric", "layer")
    }
    assert values["none", "loss", None] == values["before", "loss", None] != values["last-1", "loss", None]
    for layer in (0, 1):
        assert values["last-1", "cd", layer] == values["before", "cd", layer]
    assert table.filter(pl.col("arm") == "last-1")["run"].str.starts_with("seed1-").all()
    assert (tmp_path / "out" / "figures" / "finetuning_cd_regression_1_plain.png").exists()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["step"] == 7


def test_the_papers_numbers_stand_beside_its_own_model_alone():
    arms = {"before": "[]", "first-10": json.dumps(list(range(10)))}
    rows = [
        {"run": arm, "arm": arm, "blocks": blocks, "family": "pos", "shots": 4, "variant": "plain", "concept": None}
        | {"metric": metric, "layer": layer, "value": 0.5}
        for arm, blocks in arms.items()
        for metric, layer in [("cd", 0), ("cd", 32), *((f"accuracy{end}", None) for end in ("", "_low", "_high"))]
    ]
    config = {"arms": ["first-10"], "labels": {"pos": ["Noun", "Verb", "Null"]}, "null": {"pos": "Null"}}
    same = paper.SHAPE
    for sizes, name, there in ((same, "Llama", True), (same, "Llama-Instruct", False), ({}, "", False)):
        (cell,) = drawn._cells(pl.DataFrame(rows, infer_schema_length=None), config | sizes | {"model": name})
        points = [line for line in drawn.cd_by_layer(cell).axes[0].lines if str(line.get_gid()).startswith("paper")]
        found = {line.get_gid(): (line.get_xdata()[0], line.get_ydata()[0]) for line in points}
        expected = {"paper/before/first-10": (15, 0.68), "paper/first-10/first-10": (15, 0.95)}
        assert found == (expected if there else {})
        bars = {line.get_gid(): line.get_ydata() for line in drawn.gain(cell, "accuracy").axes[0].lines}
        assert ("paper/first-10" in bars) == there
        if there:
            np.testing.assert_allclose(bars["paper/first-10"], [0.939, 0.822, 0.694])
            np.testing.assert_allclose(bars["paper/before"], [0.306, 0.371, 0.255])
    assert cell.concepts == ["Noun", "Verb"] and cell.pooled == 3
    for other in ({"shots": 1}, {"variant": "rule"}, {"family": "adjectives"}):
        frame = pl.DataFrame([row | other for row in rows], infer_schema_length=None)
        names = {name: {other.get("family", "pos"): value["pos"]} for name, value in list(config.items())[1:]}
        assert not next(drawn._cells(frame, config | names | same | {"model": "Llama"})).paper
