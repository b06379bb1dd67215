"""Extraction: what is stored is what the model computes, through kills; CD of stored labels; bad input."""

import json
import shutil
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxconcepts import __main__
from jaxconcepts.metrics.decodability import concept_decodability
from jaxconcepts.models import language, llama, pretrained
from jaxconcepts.store import provenance
from jaxconcepts.studies.extraction import study as extraction
from jaxconcepts.studies.extraction.study import ExtractConfig

MODEL = llama.LlamaConfig(
    vocab_size=30, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, mlp_width=24, context=64
)  # fmt: skip


class Letters:
    """A tokenizer: a letter is a token, 29 begins a sequence."""

    bos_token_id = 29

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [ord(letter) - ord("a") for letter in text]


@pytest.fixture
def setting(tmp_path, monkeypatch):
    return setting_in(tmp_path, monkeypatch)


def setting_in(tmp_path, monkeypatch):
    """(config, params, lines): a checkpoint, and 37 prompts of 1 to 40 letters; the last letter is the label."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape, scale=0.4).astype(np.float32), shapes)
    pretrained.save_pretrained(MODEL, params, tmp_path / "model")
    lines = []
    for i in range(37):
        body = "".join(chr(ord("a") + letter) for letter in rng.integers(0, 26, rng.integers(0, 40)))
        lines.append({"prompt": body + "xyz"[i % 3], "concept": "xyz"[i % 3], "shots": i % 2})
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(extraction.tokenizer_file, "load", lambda folder: Letters())
    monkeypatch.setattr(extraction, "WINDOW", 3)
    config = ExtractConfig(
        model=str(tmp_path / "model"), prompts=str(tmp_path / "prompts.jsonl"), bos=True, batch_size=4, multiple=16
    )
    return config, params, lines


def check(workdir, params, lines, bos=True):
    """Every prompt once, with its labels, and the states that the model gives it alone."""
    table, stored = extraction.prompts(workdir), extraction.hidden_states(workdir)
    assert stored.shape == (37, 3, 16)
    assert Counter(table["line"].to_list()) == Counter(range(37))
    assert table["row"].to_list() == list(range(37))
    states = stored.read().result()
    for row in table.iter_rows(named=True):
        line = lines[row["line"]]
        assert (row["concept"], row["shots"]) == (line["concept"], line["shots"])
        ids = [29] * bos + Letters().encode(line["prompt"], add_special_tokens=False)
        assert row["tokens"] == len(ids)
        padded = np.array([ids + [0] * (48 - len(ids))])
        alone = language.hidden_states(MODEL, params, padded, [len(ids)])[:, 0]
        np.testing.assert_allclose(states[row["row"]], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bos", [True, False])
def test_every_prompt_is_stored_with_its_labels(setting, tmp_path, bos):
    config, params, lines = setting
    config = ExtractConfig(**(vars(config) | {"bos": bos}))
    workdir = extraction.extract(config, tmp_path / "out")
    check(workdir, params, lines, bos)
    record = json.loads((workdir / "config.json").read_text())
    assert (record["bos"], record["padding"], record["dtype"], record["snapshot"]) == (bos, "right", "float32", "model")
    assert record["attention"] == "xla"
    assert provenance(workdir)["versions"]["jax"]


def test_a_killed_extraction_resumes_with_nothing_lost_or_twice(setting, tmp_path, monkeypatch):
    config, params, lines = setting
    whole = extraction.extract(config, tmp_path / "whole")
    write, killed = extraction.files.write, 0
    for survived in (0, 1, 3, 4, 2):

        class Killed(BaseException):
            pass

        left = survived

        def write_or_die(path, data):
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            write(path, data)

        monkeypatch.setattr(extraction.files, "write", write_or_die)
        with pytest.raises(Killed):
            extraction.extract(config, tmp_path / "out")
        killed += 1
        monkeypatch.setattr(extraction.files, "write", write)
    workdir = extraction.extract(config, tmp_path / "out")
    assert killed == 5
    check(workdir, params, lines)
    ours, theirs = (extraction.hidden_states(folder).read().result() for folder in (workdir, whole))
    np.testing.assert_array_equal(ours, theirs)
    assert extraction.prompts(workdir).equals(extraction.prompts(whole))


def test_cd_of_a_stored_label_is_that_of_its_states(setting, tmp_path):
    config, _, _ = setting
    workdir = extraction.extract(config, tmp_path / "out")
    frame = extraction.decodability(workdir, "concept", k=3)
    states = extraction.hidden_states(workdir).read().result().swapaxes(0, 1)
    expected = concept_decodability(states, np.array(extraction.prompts(workdir)["concept"]), k=3, ties="split")
    np.testing.assert_allclose(frame["cd"], expected)
    # The embedding of the last letter is the concept.
    assert frame["cd"][0] == 1
    extraction.decodability(workdir, "shots", k=3)
    with pytest.raises(ValueError, match="label must be one of concept, shots, got 'task'"):
        extraction.decodability(workdir, "task")


def test_another_config_on_the_same_workdir_is_refused(setting, tmp_path):
    config, _, _ = setting
    extraction.extract(config, tmp_path / "out")
    with pytest.raises(ValueError, match="made with another config: .*bos"):
        extraction.extract(ExtractConfig(**(vars(config) | {"bos": False})), tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no prompts"),
        ('{"prompt": "a"}\n{"text": "b"}\n', r"line 2: expected a JSON object with a text \"prompt\", got '{\"text\""),
        ('{"prompt": "a"}\nnonsense\n', "line 2: not JSON"),
        ('{"prompt": "a", "row": 1}\n', "line 1: the label 'row' has the name of a column of ours"),
        ('{"prompt": "a"}\n{"prompt": "' + "b" * 64 + '"}\n', "line 2: a prompt must have 1 to 64 tokens, got 65"),
    ],
)
def test_bad_prompts_are_named_by_line(setting, tmp_path, text, message):
    config, _, _ = setting
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        extraction.extract(ExtractConfig(**(vars(config) | {"prompts": str(tmp_path / "bad.jsonl")})), tmp_path / "out")


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extracted")
    with pytest.MonkeyPatch.context() as patch:
        return Path(extraction.extract(setting_in(folder, patch)[0], folder / "out"))


@pytest.fixture
def extracted(once, tmp_path):
    return shutil.copytree(once, tmp_path / "extracted")


def chunks(workdir):
    return sorted(path for path in Path(workdir, "hidden.zarr", "c").rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(bytes(data))


def swap(path):
    other = path.parents[2] / "2" / "0" / "0"
    mine = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(mine)


@pytest.mark.parametrize(
    ("damage", "noticed_by_all"),
    [
        (lambda path: path.unlink(), True),
        (lambda path: path.write_bytes(b""), True),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), True),
        (flip, True),
        (swap, False),
    ],
    ids=["missing", "empty", "cut short", "a flipped bit", "swapped"],
)
def test_a_batch_that_is_not_as_it_was_written_is_named(extracted, damage, noticed_by_all):
    damage(chunks(extracted)[1])
    with pytest.raises(ValueError, match=r"hidden\.zarr"):
        extraction.decodability(extracted, "concept", k=3)
    if noticed_by_all:
        with pytest.raises(ValueError, match=r"hidden\.zarr/c/1/0/0"):
            extraction.hidden_states(extracted).read().result()


@pytest.mark.parametrize("name", ["prompts/000000012.parquet", "hashes/000000012.json", "done.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"nonsense"),
        lambda path: path.write_bytes(b"[]"),
        lambda path: path.write_bytes(b"{}"),
        lambda path: shutil.copy(path.with_name(path.name.replace("12.", "24.").replace("done", "config")), path),
        flip,
    ],
    ids=["missing", "empty", "text", "a list", "an object", "another's", "a flipped bit"],
)  # fmt: skip
def test_a_table_of_an_extraction_that_is_not_as_it_was_written_is_named(extracted, capsys, name, damage):
    damage(extracted / name)
    assert __main__.main(["jaxconcepts", "decodability", f"--workdir={extracted}", "--label=concept", "--k=3"]) == 2
    out = capsys.readouterr().err
    assert out.startswith("error: ") and len(out.splitlines()) == 1, out
    assert any(word in out for word in (name.partition(".")[0], "prompts/", "hidden.zarr", "of 37 prompts")), out


def test_a_doubled_table_of_an_extraction_is_named(extracted):
    shutil.copy(extracted / "prompts/000000012.parquet", extracted / "prompts/000000013.parquet")
    with pytest.raises(ValueError, match=r"no hashes/000000013\.json for .*prompts/000000013\.parquet"):
        extraction.prompts(extracted)


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_written(setting, tmp_path):
    config, _, lines = setting
    path = tmp_path / "prompts.jsonl"
    path.write_text(path.read_text() + json.dumps(lines[0] | {"prompt": "b" * 64}) + "\n")
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 38: a prompt must have 1 to 64 tokens, got 65"):
        extraction.extract(config, tmp_path / "out")
    path.write_text(path.read_text().replace("b" * 64, "\x7f"))
    with pytest.raises(ValueError, match=r"line 38: tokens must be below the vocabulary of 30, got 30"):
        extraction.extract(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prompts_without_a_label_are_left_out_of_its_cd_where_that_is_asked_for(setting, tmp_path):
    config, _, lines = setting
    path = tmp_path / "prompts.jsonl"
    rows = [line | ({} if i % 5 else {"concept": None}) for i, line in enumerate(lines)]
    path.write_bytes(b"\xef\xbb\xbf" + "".join(json.dumps(row) + "\n" for row in rows).encode() + b"\n\n")
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 1: the label 'concept' is missing"):
        extraction.extract(config, tmp_path / "out")
    workdir = extraction.extract(ExtractConfig(**vars(config) | {"skip_missing": True}), tmp_path / "out")
    with pytest.raises(ValueError, match=r"label 'concept' is missing in 8 prompts, first in line 1 of the prompts"):
        extraction.decodability(workdir, "concept", k=3)
    frame = extraction.decodability(workdir, "concept", k=3, skip_missing=True)
    table, states = extraction.prompts(workdir), extraction.hidden_states(workdir).read().result().swapaxes(0, 1)
    kept = table["concept"].is_not_null().to_numpy()
    expected = concept_decodability(states[:, kept], np.array(table["concept"])[kept].astype(str), k=3, ties="split")
    np.testing.assert_allclose(frame["cd"], expected)
    assert extraction.decodability(workdir, "shots", k=3)["cd"].is_between(0, 1).all()


def test_bfloat16_is_stored_and_verified(setting, tmp_path):
    workdir = extraction.extract(ExtractConfig(**vars(setting[0]) | {"dtype": "bfloat16"}), tmp_path / "out")
    extraction.verify(workdir)
    assert str(extraction.hidden_states(workdir).read().result().dtype) == "bfloat16"


def test_an_extraction_into_a_folder_named_like_a_pattern(setting, tmp_path):
    workdir = extraction.extract(setting[0], tmp_path / "a[b]*" / "out")
    check(workdir, *setting[1:])
