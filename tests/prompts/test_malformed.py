"""Malformed files of text: each is refused by a ValueError of one line that names file, place and what is accepted; and
text that looks odd and is none of these is read as it stands."""

import json
import os
import re

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxconcepts.prompts import jsonl, treebanks
from jaxconcepts.studies.extraction import prompt_file

BOM = b"\xef\xbb\xbf"
GOOD = b'{"input": "a", "output": "b", "concept": "c"}\n{"input": "d", "output": "e", "concept": "c"}\n'
LINES = {  # Not JSON objects at all: text, and what the error says of it.
    "not json": (b"nonsense", "not JSON"),
    "cut short": (b'{"input": "a", "output": "b", "conc', "not JSON"),
    "a list": (b'["a", "b"]', "expected"),
    "text": (b'"a"', "expected"),
    "a number": (b"3", "expected"),
    "null": (b"null", "expected"),
    "true": (b"true", "expected"),
    "two objects": (b"{} {}", "not JSON"),
    "single quotes": (b"{'input': 'a'}", "not JSON"),
    "trailing comma": (b'{"input": "a",}', "not JSON"),
    "comment": (b"// a comment", "not JSON"),
    "latin 1": ('{"input": "\xe9"}'.encode("latin-1"), "not UTF-8|is not UTF-8"),
    "utf 16": ('{"input": "a"}'.encode("utf-16"), "not UTF-8|is not UTF-8"),
    "a null byte": (b'{"input": "a\x00"}', "not JSON"),
    "deep lists": (b"[" * 100_000, "not JSON"),
    "deep objects": (b'{"a":' * 100_000, "not JSON"),
    "a control character": (b'{"input": "a\x0cb"}', "not JSON"),
    "twice": (b'{"input": "a", "input": "b", "prompt": "a", "prompt": "b"}', "stands there twice"),
    "half a surrogate pair": (b'{"input": "\\ud800", "output": "b", "concept": "c", "prompt": "\\udc00"}', "surrogate"),
    "half of one in a name": (
        b'{"input": "a", "output": "b", "concept": "c", "prompt": "p", "\\ud800": 1}',
        "surrogate",
    ),
}
VALUES = [None, 3, 1.5, True, [], {}, ["a"], {"a": 1}, "", "   ", float("nan"), float("inf"), 10**400]


def assert_one_line(error, *needed):
    text = str(error.value)
    assert len(text.splitlines()) == 1 and len(text) < 1000, text
    for pattern in needed:
        assert re.search(pattern, text), (pattern, text)


def family(path):
    return jsonl.family(path)


def scan(path):
    return prompt_file.scan(epath.Path(path))


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("read", [family, scan])
@pytest.mark.parametrize("place", [0, 2])
def test_a_line_that_is_no_object(tmp_path, read, name, place):
    line, message = LINES[name]
    good = GOOD if read is family else b'{"prompt": "a", "l": 1}\n' * 2
    before = b"".join(good.splitlines(keepends=True)[:place])
    (tmp_path / "x.jsonl").write_bytes(before + line + b"\n" + good)
    with pytest.raises(ValueError) as refused:
        read(tmp_path / "x.jsonl")
    where = "x.jsonl" if name in ("latin 1", "utf 16") and read is family else rf"x\.jsonl, line {place + 1}\b"
    assert_one_line(refused, where, message)


@pytest.mark.parametrize("value", VALUES, ids=[repr(value)[:12] for value in VALUES])
@pytest.mark.parametrize("field", jsonl.FIELDS)
def test_a_field_of_an_example_that_is_no_text(tmp_path, field, value):
    row = {"input": "a", "output": "b", "concept": "c"} | {field: value}
    (tmp_path / "x.jsonl").write_text(GOOD.decode() + json.dumps(row))
    with pytest.raises(ValueError) as refused:
        jsonl.family(tmp_path / "x.jsonl")
    assert_one_line(refused, r"x\.jsonl, line 3", field if value != 10**400 else "JSON|string")


@pytest.mark.parametrize("field", jsonl.FIELDS)
def test_a_field_that_is_not_there(tmp_path, field):
    row = {name: "a" for name in jsonl.FIELDS if name != field}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError) as refused:
        jsonl.family(tmp_path / "x.jsonl")
    assert_one_line(refused, r"x\.jsonl, line 1", f"'{field}' must be a string that is not empty, found nothing")


@pytest.mark.parametrize("concept", ["null", "NaN", None])
def test_examples_without_a_concept_are_left_out_where_that_is_asked_for(tmp_path, concept):
    rows = [f'{{"input": "{i}", "output": "b", "concept": "c"}}' for i in range(5)]
    rows.insert(2, '{"input": "x", "output": "b"' + (f', "concept": {concept}}}' if concept else "}"))
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    with pytest.raises(
        ValueError, match=r"line 3: 'concept' must .*jsonl_skip_missing leaves out such lines|found nan"
    ):
        jsonl.family(tmp_path / "x.jsonl")
    made = jsonl.family(tmp_path / "x.jsonl", skip_missing=True)
    assert len(made.train["c"]) + len(made.test["c"]) == 5


def labelled(folder, *labels):
    rows = [json.dumps({"prompt": "a"} | label) for label in labels]
    (folder / "x.jsonl").write_text("\n".join(rows))
    return epath.Path(folder / "x.jsonl")


@pytest.mark.parametrize("missing", [{"c": None}, {"c": float("nan")}, {}], ids=["null", "NaN", "not there"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_missing_label_is_refused_by_line_and_name(tmp_path, missing, place):
    labels = [{"c": 0.5, "d": 1}] * 2
    labels.insert(place, {"d": 1} | missing)
    path = labelled(tmp_path, *labels)
    with pytest.raises(ValueError) as refused:
        prompt_file.scan(path)
    assert_one_line(refused, rf"x\.jsonl, line {place + 1}: the label 'c' is missing", "skip_missing")
    assert prompt_file.scan(path, skip_missing=True).count == 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([{"c": []}], "the label 'c' must be text, a number, true or false, got \\[\\]"),
        ([{"c": {}}], "the label 'c' must be text, a number, true or false, got {}"),
        ([{"c": {"a": 1}}], "the label 'c' must be text, a number"),
        ([{"c": [[1]]}], "the label 'c' must be text, a number"),
        ([{"c": 2**63}], "the label 'c' must fit 64 bits, got 9223372036854775808"),
        ([{"c": -(2**63) - 1}], "the label 'c' must fit 64 bits"),
        ([{"c": 1}, {"c": "1"}], "line 2: the label 'c' must be a number as in line 1, got text"),
        ([{"c": True}, {"c": 1}], "line 2: the label 'c' must be true or false as in line 1, got a number"),
        ([{"c": 1.5}, {"c": False}], "line 2: the label 'c' must be a number as in line 1, got true or false"),
        ([{"c": "x"}, {"c": None}, {"c": 2}], "line 3: the label 'c' must be text as in line 1, got a number"),
        ([{"row": 1}], "line 1: the label 'row' has the name of a column of ours"),
        ([{"line": 1}], "line 1: the label 'line' has the name of a column of ours"),
        ([{"tokens": 1}], "line 1: the label 'tokens' has the name of a column of ours"),
        ([{"prompt": None}], 'line 1: expected a JSON object with a text "prompt"'),
        ([{"prompt": 3}], 'line 1: expected a JSON object with a text "prompt"'),
        ([{"prompt": ["a"]}], 'line 1: expected a JSON object with a text "prompt"'),
    ],
)  # fmt: skip
def test_a_label_that_no_table_takes(tmp_path, labels, message):
    with pytest.raises(ValueError) as refused:
        prompt_file.scan(labelled(tmp_path, *labels), skip_missing=True)
    assert_one_line(refused, r"x\.jsonl", message)


def test_whole_and_broken_numbers_are_one_label(tmp_path):
    import polars as pl

    scanned = prompt_file.scan(labelled(tmp_path, {"c": 1, "d": "x", "e": True}, {"c": 0.5, "d": "", "e": False}))
    assert scanned.labels == {"c": pl.Float64, "d": pl.String, "e": pl.Boolean}


@pytest.mark.parametrize("text", [b"", b"\n\n", BOM, BOM + b"\n \n"])
@pytest.mark.parametrize("read", [family, scan, treebanks.read_conllu, treebanks.read_penn])
def test_files_without_anything(tmp_path, read, text):
    (tmp_path / "x.jsonl").write_bytes(text)
    if read in (family, scan):
        with pytest.raises(ValueError) as refused:
            read(tmp_path / "x.jsonl")
        assert_one_line(refused, r"x\.jsonl holds no")
    else:
        assert read(tmp_path / "x.jsonl") == []


@pytest.mark.parametrize("what", ["a folder", "nothing", "a pipe", "/dev/zero"])
@pytest.mark.parametrize("read", [family, scan, treebanks.read_conllu, treebanks.read_penn])
def test_paths_that_are_no_file(tmp_path, read, what):
    """None is waited for."""
    paths = {"a folder": tmp_path, "nothing": tmp_path / "none.jsonl", "a pipe": tmp_path / "pipe"}
    os.mkfifo(tmp_path / "pipe")
    path = paths.get(what, what)
    with pytest.raises(ValueError) as refused:
        read(path)
    assert_one_line(refused, re.escape(str(path)), "must be a")


def test_a_byte_order_mark_and_blank_lines_are_no_prompts(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(BOM + b'{"prompt": "a"}\r\n\r\n{"prompt": "b\xe2\x80\xa8c"}\n\n')
    read = list(prompt_file.lines(epath.Path(tmp_path / "x.jsonl")))
    assert read == [(0, {"prompt": "a"}), (2, {"prompt": "b\u2028c"})]


ODD = {"U+2028": "\u2028", "U+2029": "\u2029", "NEL": "\x85", "form feed": "\x0c", "vertical tab": "\x0b", "FS": "\x1c"}
TREE = "1\tDogs\tdog\tNOUN\t_\t_\t2\tnsubj\t_\t_\n2\tbark\tbark\tVERB\t_\t_\t0\troot\t_\t_\n"


@pytest.mark.parametrize("name", ODD)
def test_what_unicode_calls_a_line_break_ends_no_line_of_ours(tmp_path, name):
    (tmp_path / "x.conllu").write_text(f"# text = Dogs{ODD[name]}bark\n{TREE}\n", encoding="utf-8")
    assert [[word.text for word in s] for s in treebanks.read_conllu(tmp_path / "x.conllu")] == [["Dogs", "bark"]]
    (tmp_path / "x.pos").write_text(f"Dogs/NNS{ODD[name]}bark/VBP ./.\n", encoding="utf-8")
    assert [[word.text for word in s] for s in treebanks.read_penn(tmp_path / "x.pos")] == [["Dogs", "bark", "."]]


WORD = "1\tDogs\tdog\tNOUN\t_\t_\t0\troot\t_\t_"
CONLLU = {
    "no tabs": ("1 Dogs dog NOUN _ _ 0 root _ _", "expected 10 columns parted by tabs, found 1"),
    "nine columns": (WORD.rpartition("\t")[0], "expected 10 columns parted by tabs, found 9"),
    "eleven columns": (WORD + "\t_", "expected 10 columns parted by tabs, found 11"),
    "an id of letters": (WORD.replace("1", "x", 1), "line 2"),
    "an empty id": (WORD[1:], "line 2"),
    "a line break in an id": ("\x0b" + WORD, r"\\x0b1. is not a valid ID"),
    "a line break in a head": (WORD.replace("\t0\t", "\t\x850\t"), "line 2"),
    "an id from 0": (WORD.replace("1", "0", 1), "expected id 1, found '0'"),
    "an id too far": (WORD.replace("1", "7", 1), "expected id 1, found '7'"),
    "a negative id": (WORD.replace("1", "-1", 1), "line 2"),
    "an id of 400 digits": (WORD.replace("1", "9" * 400, 1), "line 2"),
    "an unknown UPOS": (WORD.replace("NOUN", "NN"), "UPOS must be one of .*; found 'NN'"),
    "a small UPOS": (WORD.replace("NOUN", "noun"), "UPOS must be one of .*; found 'noun'"),
    "an empty UPOS": (WORD.replace("NOUN", ""), "UPOS must be one of"),
    "a head of letters": (WORD.replace("\t0\t", "\tx\t"), "line 2"),
    "two spaces for a tab": (WORD.replace("\t", "  "), "expected 10 columns parted by tabs, found 1"),
    "text": ("Dogs bark.", "expected 10 columns parted by tabs, found 1"),
    "feats without =": (WORD.replace("\t_\t_\t0", "\t_\tCase\t0"), None),
    "a range that is none": (WORD.replace("1", "2-x", 1), "line 2"),
}


@pytest.mark.parametrize("name", CONLLU)
def test_malformed_conllu(tmp_path, name):
    line, message = CONLLU[name]
    (tmp_path / "x.conllu").write_text(f"# text\n{line}\n")
    if message is None:  # What no column of ours is read from.
        assert len(treebanks.read_conllu(tmp_path / "x.conllu")) == 1
        return
    with pytest.raises(ValueError) as refused:
        treebanks.read_conllu(tmp_path / "x.conllu")
    assert_one_line(refused, r"x\.conllu, line 2", message)


PENN = [
    "dog",
    "dog/",
    "/NN",
    "/",
    "a/DT dog",
    "a/DT\n\ndog",
    ")",
    "(S (NN dog)",
    "(NN a b c)",
    "(S (NN dog)) )",
    "(S))(",
]


@pytest.mark.parametrize("text", PENN)
def test_malformed_word_tag(tmp_path, text):
    (tmp_path / "x.pos").write_text(text)
    with pytest.raises(ValueError) as refused:
        treebanks.read_penn(tmp_path / "x.pos")
    assert_one_line(refused, r"x\.pos, line [123]: (expected|this bracket)")


@pytest.mark.parametrize("read", [family, scan, treebanks.read_conllu, treebanks.read_penn])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_bytes_are_read_or_refused_in_one_line(tmp_path_factory, read, data):
    """Any bytes, and good files with a stretch of them replaced."""
    good = {family: GOOD, scan: b'{"prompt": "a", "l": 1}\n' * 3, treebanks.read_conllu: TREE.encode()}
    start = good.get(read, b"(S (NN dog) (VBD barked))\nDogs/NNS bark/VBP\n")
    first = data.draw(st.integers(0, len(start)))
    stop = data.draw(st.integers(first, min(first + 6, len(start))))
    path = tmp_path_factory.mktemp("any") / "x.jsonl"
    path.write_bytes(start[:first] + data.draw(st.binary(max_size=12)) + start[stop:])
    try:
        read(path)
    except ValueError as error:
        assert "x.jsonl" in str(error) and len(str(error).splitlines()) == 1, error
