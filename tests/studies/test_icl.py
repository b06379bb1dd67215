"""The in-context study on a tiny checkpoint: its numbers against transformers and scikit-learn; series; bad input."""

import json
import logging
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import polars as pl
import pytest
from sklearn.neighbors import KNeighborsClassifier

from jaxconcepts import store
from jaxconcepts.metrics.draws import key_of_draws, sample_draws
from jaxconcepts.prompts import render
from jaxconcepts.studies.asking import checkpoints, passes
from jaxconcepts.studies.asking import prompt_pass as icl_pass
from jaxconcepts.studies.icl import cells as icl_cells
from jaxconcepts.studies.icl import config as icl_config
from jaxconcepts.studies.icl import controls as icl_controls
from jaxconcepts.studies.icl import study as icl
from jaxconcepts.training import initial

CONTROLS = (*icl_controls.SURFACE, "untrained")
CONFIG = icl.IclConfig(
    families=("bitwise",), shots=(1, 2), variants=("plain", "rule"), prompts=20, per_draw=8, draws=3, k=3,
    permutations=20, batch_size=80, multiple=128, keep_hidden=12, keep_layers=3,
    bitwise=icl_config.BitwiseConfig(bits=3, train=60, test=40),
)  # fmt: skip
FAMILY = icl_config.families(CONFIG)["bitwise"]


@pytest.fixture(scope="module")
def study(checkpoint, tmp_path_factory):
    return icl.run(CONFIG, [icl.Checkpoint(0, str(checkpoint.folder))], tmp_path_factory.mktemp("icl") / "run")


@pytest.fixture(scope="module")
def encoded(checkpoint):
    """(cell, its prompts, Encoded) of two shots."""
    family = icl_config.families(CONFIG)["bitwise"]
    cell = icl_cells.Cell("bitwise", 2, "plain")
    prompts = [p for c in family.labels for p in render.prompts(family, c, 2, CONFIG.prompts, seed=0)]
    return cell, prompts, icl_cells.encode_all(CONFIG, {"bitwise": family}, [cell], checkpoint.tokenizer)[cell]


@pytest.fixture(scope="module")
def found(checkpoint, encoded):
    return icl_pass.read_prompts(CONFIG, *checkpoint[1:], encoded[2], "two shots")


@pytest.fixture(scope="module")
def theirs(checkpoint):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(checkpoint.folder).eval()


def values(table, metric, **keys):
    return table.filter(pl.col("metric") == metric, **keys).sort("layer", "concept", "other")["value"].to_numpy()


@pytest.mark.slow
def test_cd_of_every_layer_is_scikit_learn_s_on_the_stored_states(study):
    table, hidden = store.results(study, "icl", "metrics"), store.results(study, "icl", "hidden")
    labels, pool = np.repeat(np.arange(7), 8), np.repeat(np.arange(7), 12)
    # Of 12 prompts a concept one draw of 8 shares none.
    key = key_of_draws(jax.random.key(0))
    chosen = np.asarray(sample_draws(key, pool, 7, 8))[0]
    assert table["run"].n_unique() == 4
    for run in table["run"].unique():
        cell = table.filter(run=run)
        for layer in range(3):
            states = hidden.filter(run=run, layer=layer).sort("concept", "point")["state"].to_numpy()
            votes = KNeighborsClassifier(3, algorithm="brute").fit(states[chosen], labels).predict_proba(None)
            most = votes == votes.max(1, keepdims=True)
            expected = (most[np.arange(56), labels] / most.sum(1)).reshape(7, 8).mean(1)
            if layer == 0:
                # The embedding of the prompts' last token, the same in all: 7 votes for a point's own concept, and 8
                # for each other one. scikit-learn would take the first three points.
                assert len(np.unique(states, axis=0)) == 1
                expected = np.zeros(7)
            own = cell.filter(pl.col("concept").is_not_null(), layer=layer)
            np.testing.assert_allclose(values(own, "cd_with_query"), expected, atol=1e-6)
            mean = cell.filter(pl.col("concept").is_null(), layer=layer)
            np.testing.assert_allclose(values(mean, "cd_with_query"), [expected[:6].mean()], atol=1e-6)  # without Null


def test_states_are_those_of_transformers(theirs, checkpoint, encoded, found):
    import torch

    for i in (0, 75, 139):
        with torch.no_grad():
            layers = theirs(torch.tensor(encoded[2].ids[i][None].tolist()), output_hidden_states=True).hidden_states
        # Theirs of the last layer is after the final norm.
        for layer in range(2):
            expected = layers[layer][0, -1].numpy()
            np.testing.assert_allclose(found.states[layer, i], expected, atol=1e-4 * np.abs(expected).max())


def test_answers_and_log_probabilities_are_those_of_transformers_prompt_by_prompt(theirs, checkpoint, encoded, found):
    import torch

    _, prompts, coded = encoded
    tokenizer = checkpoint.tokenizer
    for i in range(0, 140, 7):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer.encode(prompts[i].text, add_special_tokens=False)]])
        assert ids[0].tolist() == coded.ids[i].tolist()
        greedy = {"max_new_tokens": coded.max_new_tokens, "do_sample": False, "pad_token_id": 0}
        written = theirs.generate(ids, attention_mask=torch.ones_like(ids), **greedy)
        text = tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True).split("\n")[0].strip()
        assert found.texts[i] == text and found.correct[i] == (text == prompts[i].answer)
        for concept, answer in coded.ruled[i].items():
            _, (tail,) = render.encode(tokenizer, [prompts[i]._replace(answer=answer)], bos=True)
            with torch.no_grad():
                logits = theirs(torch.cat([ids, torch.tensor([tail])], 1)).logits[0].double()
            steps = torch.log_softmax(logits, -1)[ids.shape[1] - 1 : -1]
            expected = float(sum(step[token] for step, token in zip(steps, tail, strict=True)))
            number = list(coded.ruled[i]).index(concept)
            assert found.log_probs[i, number] == pytest.approx(expected, abs=1e-3)


def test_the_tables_hold_what_the_pass_found(study, encoded, found):
    cell = store.results(study, "icl", "metrics").filter(run="000000000-bitwise-2-plain")
    assert cell["family"].unique().to_list() == ["bitwise"] and cell["shots"].unique().to_list() == [2]
    accuracy = values(cell.filter(pl.col("concept").is_not_null()), "accuracy")
    np.testing.assert_allclose(accuracy, found.correct.reshape(7, 20).mean(1))
    log_probs = found.log_probs.reshape(7, 20, 7)
    assert np.isnan(log_probs[:6, :, 6]).all()  # what Null would answer is known of its own prompts alone
    own = cell.filter(metric="log_prob", concept=3, other=1)["value"]
    np.testing.assert_allclose(own, [log_probs[3, :, 1].mean()], rtol=1e-5)
    assert cell.filter(metric="log_prob").height == 6 * 6 + 7
    assert cell.filter(metric="pairwise_cd").height == 42 and values(cell, "prompts") == [20]
    record = store.config(study / "icl")
    assert record["labels"]["bitwise"] == ["AND", "NAND", "OR", "NOR", "XOR", "XNOR", "Null"]
    assert store.config(study)["study"] == "icl" and store.provenance(study)["versions"]["jax"]


def test_controls_stand_beside_cd(study, checkpoint, encoded):
    """Shown answers by scikit-learn's distances from the prompts' own text; the untrained model by its states."""
    cell, prompts, coded = encoded
    table = store.results(study, "icl", "metrics").filter(run=f"000000000-{cell}")
    shown = [checkpoint.tokenizer("".join(f" {d.output}" for d in p.demonstrations))["input_ids"] for p in prompts]
    assert [sorted(tokens) for tokens in coded.shown] == [sorted(tokens) for tokens in shown]
    sizes = {"k": 3, "draws": 3, "seed": 0}
    for name, texts in (("prompt_tokens", coded.ids), ("shown_answers", shown)):
        expected = icl_controls.of_bags(icl_controls.bags(texts), coded.queries, 8, 7, 6, **sizes)
        own = table.filter(pl.col("layer").is_null())
        for end, part in zip(("", "_low", "_high"), expected[:3], strict=True):
            np.testing.assert_allclose(values(own, f"cd_{name}{end}"), np.roll(part, 1), atol=1e-6)
    model = checkpoint.model
    params = initial.fan_in(model, jax.random.key(0))
    rows = (np.arange(7)[:, None] * 20 + 8 + np.arange(8)).ravel()
    states = icl_pass.read_states(CONFIG, model, params, [coded.ids[row] for row in rows], "untrained")
    layer, expected = icl_controls.of_states(states, coded.queries[rows], 7, 6, k=3, seed=0)
    mean = table.filter(pl.col("concept").is_null())
    assert values(mean, "untrained_layer") == [layer]
    by_layer = [expected.cd[layer, -1], *expected.cd[:, -1]]  # that of its best layer has none of its own
    np.testing.assert_allclose(values(mean, "cd_untrained"), by_layer, atol=1e-6)
    highest = max(values(mean.filter(pl.col("layer").is_null()), f"cd_{c}")[0] for c in CONTROLS)
    np.testing.assert_allclose(values(mean, "cd_above"), values(mean, "cd") - highest, atol=1e-6)
    assert (values(mean, "cd_above_low") < values(mean, "cd_above")).all()


def test_accuracy_against_cd_over_all_shots_is_of_the_cells_points(study):
    fits = store.results(study, "icl", "fits")
    assert set(fits["shots"]) <= {None} and set(fits["variant"]) <= {"plain", "rule"}


def test_a_measured_cell_is_not_measured_again(study, checkpoint, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(icl, "read_prompts", never)
    icl.run(CONFIG, [icl.Checkpoint(0, str(checkpoint.folder))], study)
    with pytest.raises(AssertionError):
        icl.run(CONFIG, [icl.Checkpoint(0, str(checkpoint.folder)), icl.Checkpoint(7, str(checkpoint.folder))], study)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pass_that_was_stopped_goes_on_where_it_was(checkpoint, encoded, tmp_path, caplog, monkeypatch, dtype):
    monkeypatch.setattr(passes, "KEPT_EVERY", 0)
    monkeypatch.setattr(logging.getLogger("jaxconcepts"), "level", logging.INFO)
    config, model = replace(CONFIG, batch_size=20), replace(checkpoint.model, dtype=dtype)
    params = jax.tree.map(lambda a: a.astype(dtype), checkpoint.params)
    read = partial(icl_pass.read_prompts, config, model, params, checkpoint.tokenizer, encoded[2], "cell")
    whole, honest, asked = read(), icl_pass.scoring.score, []

    def stops_in_the_fifth(*given, **options):
        asked.append(given)
        if len(asked) == 5:
            raise KeyboardInterrupt
        return honest(*given, **options)

    monkeypatch.setattr(icl_pass.scoring, "score", stops_in_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        read(passes.Parts(tmp_path / "parts"))
    # The fourth batch was still under way.
    kept = sorted((tmp_path / "parts").iterdir())
    assert [path.name for path in kept] == [f"part.{number:09d}.npz" for number in range(3)]
    kept[1].write_bytes(kept[1].read_bytes()[:1000])
    found = read(passes.Parts(tmp_path / "parts"))
    assert "part.000000001.npz is damaged" in caplog.text and "40 of 140 prompts are already done" in caplog.text
    assert len(asked) == 5 + 5
    for name in ("states", "log_probs", "correct"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert found.texts == whole.texts and found.states.dtype == dtype
    again = read(passes.Parts(tmp_path / "parts"))
    assert len(asked) == 10 and again.texts == whole.texts
    np.testing.assert_array_equal(again.states, whole.states)


def test_what_was_kept_is_of_one_checkpoint_and_gone_with_its_cell(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "KEPT_EVERY", 0)
    config = replace(CONFIG, shots=(1,), variants=("plain",), untrained=False)
    honest = icl.icl_scores.reduce_states

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(icl.icl_scores, "reduce_states", fails)
    with pytest.raises(KeyboardInterrupt):
        icl.run(config, [icl.Checkpoint(0, str(checkpoint.folder))], tmp_path / "run")
    (kept,) = (tmp_path / "run" / "icl" / "parts").iterdir()
    other = str(shutil.copytree(checkpoint.folder, tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        icl.run(config, [icl.Checkpoint(0, other)], tmp_path / "run")
    assert len(list((tmp_path / "run" / "icl" / "parts").iterdir())) == 2 and list(kept.iterdir())
    monkeypatch.setattr(icl.icl_scores, "reduce_states", honest)
    monkeypatch.setattr(icl_pass.scoring, "score", fails)
    icl.run(config, [icl.Checkpoint(0, other)], tmp_path / "run")
    assert not (tmp_path / "run" / "icl" / "parts").exists()
    assert store.results(tmp_path / "run", "icl", "metrics")["run"].n_unique() == 1


def test_another_config_or_checkpoint_for_the_same_cells_is_refused(study, checkpoint, tmp_path):
    source = icl.Checkpoint(0, str(checkpoint.folder))
    with pytest.raises(ValueError, match="made with another config: .*k: was 3, now 4"):
        icl.run(replace(CONFIG, k=4), [source], study)
    with pytest.raises(ValueError, match="step 0 of .* is checkpoint .*, got other: give it another workdir"):
        icl.run(CONFIG, [icl.Checkpoint(0, str(shutil.copytree(checkpoint.folder, tmp_path / "other")))], study)


def test_a_series_is_fetched_scored_and_evicted_one_after_another(study, checkpoint, tmp_path, monkeypatch):
    """Two revisions by a hub that copies the tiny checkpoint, and a folder of the user's."""
    import huggingface_hub

    there = []

    def download(repo, revision, cache_dir=None, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise FileNotFoundError("not in the machine's cache")
        there.append((revision, sorted(p.name for p in Path(cache_dir).parent.iterdir() if p.name == "fetched")))
        return shutil.copytree(checkpoint.folder, Path(cache_dir) / repo / revision)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    mine = shutil.copytree(checkpoint.folder, tmp_path / "mine")
    config = replace(CONFIG, variants=("plain",), shots=(2,))
    series = [icl.Checkpoint(20, "a/b", "late"), icl.Checkpoint(10, "a/b", "early"), icl.Checkpoint(30, str(mine))]
    root = icl.run(config, series, tmp_path / "run")
    assert there == [("early", []), ("late", [])]  # by step, each after the one before had gone
    assert not (root / "fetched").exists() and (mine / "model.safetensors").exists()
    table = store.results(root, "icl", "metrics")
    names = dict(table.select("step", "checkpoint").unique().iter_rows())
    assert names == {10: "a/b@early", 20: "a/b@late", 30: "mine"}
    cells = [table.filter(step=step).drop("run", "step", "checkpoint") for step in (10, 20, 30)]
    assert cells[0].equals(cells[1]) and cells[0].equals(cells[2])  # the same weights
    again = store.results(study, "icl", "metrics").filter(shots=2, variant="plain").drop("run", "step", "checkpoint")
    assert again.equals(cells[0])
    assert len(list((root / "icl" / "untrained").glob("*.parquet"))) == 1  # one for all checkpoints of the shape


def test_series_are_read_from_text(tmp_path):
    found = checkpoints.series("1000=allenai/OLMo-7B@step1000-tokens4B,2000=some/folder")
    assert found == [
        icl.Checkpoint(1000, "allenai/OLMo-7B", "step1000-tokens4B"),
        icl.Checkpoint(2000, "some/folder", None),
    ]
    for name in ("step_000500", "step_001000", "other"):
        (tmp_path / name).mkdir()
    assert [c.step for c in checkpoints.series(str(tmp_path))] == [500, 1000]
    with pytest.raises(ValueError, match="STEP=SOURCE.*got 'some/folder'"):
        checkpoints.series("some/folder")
    with pytest.raises(ValueError, match="distinct steps, got a/b and c/d at step 1"):
        checkpoints.check_series([icl.Checkpoint(1, "a/b"), icl.Checkpoint(1, "c/d")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 8}, "k must be below per_draw = 8, .*, got 8"),
        ({"prompts": 15}, r"prompts must be at least 2 \* per_draw = 16.*got 15"),
        (
            {"variants": ("plain", "rhyme")},
            "variants must be a tuple, .* one of plain, rule, name, got 'rhyme'",
        ),
        ({"shots": (1, -1)}, "shots must be a tuple, each element an integer from 0 to 10000, got -1"),
        ({"dtype": "int8"}, "dtype must be"),
        ({"keep_hidden": 13}, "keep_hidden must be at most prompts - per_draw = 12, got 13"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_unknown_fields_are_named():
    assert icl_config.from_fields(icl_config.default_fields()) == icl.IclConfig()
    with pytest.raises(ValueError, match="unknown config field bitwise.bit; did you mean bitwise.bits?"):
        icl_config.from_fields({"bitwise": {"bit": 3}})
    with pytest.raises(ValueError, match="families must be .* or the path of a .jsonl file; got 'bit'"):
        icl_config.families(icl.IclConfig(families=("bit",)))


def test_a_packaged_name_and_a_gguf_file_are_checkpoints(tmp_path):
    (tmp_path / "model.gguf").touch()
    found = checkpoints.check_series(
        [icl.Checkpoint(0, "smollm2-135m"), icl.Checkpoint(1, str(tmp_path / "model.gguf"))]
    )
    assert [c.label for c in found] == ["smollm2-135m", "model.gguf"]
    with pytest.raises(ValueError, match="'smollm3' is neither a folder nor a GGUF file, .* or one of smollm2-135m"):
        checkpoints.check_series([icl.Checkpoint(0, "smollm3")])


def test_several_corpus_files_are_read_at_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(icl_config.pos, "read_conllu", lambda path: read.append(Path(path).name) or [path])
    monkeypatch.setattr(icl_config.pos, "family", lambda sentences, *_, **__: replace(FAMILY, name="pos"))
    for name in ("b.conllu", "a.conllu", "c.conllu"):
        (tmp_path / name).touch()
    corpus = f"{tmp_path}/[ab].conllu, {tmp_path}/c.conllu"
    icl_config.families(icl.IclConfig(families=("pos",), pos=icl_config.PosConfig(corpus=corpus)))
    assert read == ["a.conllu", "b.conllu", "c.conllu"]


def broken(checkpoint, folder):
    return Path(shutil.copytree(checkpoint.folder, folder))


def test_input_that_cannot_work_is_refused_before_weights_are_read(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(icl.pretrained, "read_params", lambda *_: pytest.fail("weights were read"))

    def refused(config, folder, message):
        with pytest.raises(ValueError, match=message):
            icl.run(config, [icl.Checkpoint(0, str(folder))], tmp_path / "run")
        assert not (tmp_path / "run").exists()

    none = broken(checkpoint, tmp_path / "none")
    for file in none.glob("*token*"):
        file.unlink()
    refused(CONFIG, none, "has no tokenizer: none of tokenizer.json")
    small = broken(checkpoint, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"vocab_size": 30}))
    refused(CONFIG, small, "small: the tokenizer does not match the model: its largest id is .*, the vocabulary has 30")
    short = broken(checkpoint, tmp_path / "short")
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 48}))
    refused(
        replace(CONFIG, shots=(1, 4), variants=("plain",)), short,
        r"short: bitwise prompts \(plain\) of 4 shots take up to \d+ tokens with their answers, the model's context "
        "is 48; shots that fit: 1$",
    )  # fmt: skip
    few = replace(CONFIG, k=7, bitwise=icl_config.BitwiseConfig(bits=2, train=60, test=40))
    refused(few, checkpoint.folder, "bitwise: k = 7 neighbours need more than 7 queries of every concept; 'AND' has 3")
    refused(replace(CONFIG, shots=(1, 60)), checkpoint.folder, "60 shots of 'AND' need 60 distinct inputs in train")
    with pytest.raises(ValueError, match="checkpoints must name at least one, got none"):
        icl.run(CONFIG, [], tmp_path / "run")


def test_both_passes_say_how_far_they_are(checkpoint, encoded, caplog, monkeypatch):
    clock = iter(range(0, 10_000, 3))
    monkeypatch.setattr(passes, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    config = replace(CONFIG, batch_size=20)
    with caplog.at_level("INFO", logger="jaxconcepts"):
        icl_pass.read_states(config, *checkpoint[1:3], encoded[2].ids, "untrained")
        icl_pass.read_prompts(config, *checkpoint[1:], encoded[2], "trained")
    lines = [record.getMessage() for record in caplog.records if " prompts " in record.getMessage()]
    # 140 prompts in seven batches of three seconds each; a line every five seconds at most.
    expected = [f"{20 * batch} of 140 prompts  6.7 prompts/s  {3 * (7 - batch)} s left" for batch in (2, 4, 6)]
    assert lines == [f"{name}: {line}" for name in ("untrained", "trained") for line in expected]
