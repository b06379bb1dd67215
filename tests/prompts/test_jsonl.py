"""Families from JSONL files: the split, what is known of an input, and errors that name file and line."""

import json

import pytest

from jaxconcepts.prompts import family, jsonl, render


def written(folder, rows):
    path = folder / "capitals.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows(count=10):
    for i in range(count):
        yield {"input": f"word{i}", "output": f"WORD{i}", "concept": "upper"}
        yield {"input": f"word{i}", "output": f" {i}drow ", "concept": "reversed", "note": 3}
        yield {"input": f"word{i}", "output": f"word{i * 7 % 10}", "concept": "shuffled"}


def test_a_file_is_a_family(tmp_path):
    made = jsonl.family(written(tmp_path, [*rows(), "", *rows(2)]), null="shuffled", rules={"upper": "Shout."})
    assert made.name == "capitals"
    assert (made.concepts, made.null) == (("upper", "reversed"), "shuffled")
    assert made.labels == ("upper", "reversed", "shuffled")
    asked = family.inputs(made.test)
    assert len(asked) == 2
    assert len(family.inputs(made.train)) == 8
    for concept in made.labels:
        assert {example.input for example in made.test[concept]} == asked
    assert made.answers("word4") == {"upper": "WORD4", "reversed": "4drow"}
    assert made.answers("word") == {}
    # What is repeated is taken once, but for Null.
    assert [len(made.train[c]) + len(made.test[c]) for c in made.labels] == [10, 10, 12]
    (prompt,) = render.prompts(made, "upper", 2, 1, seed=0, variant="rule")
    assert prompt.text.startswith("Shout.\n\nInput: word")
    (prompt,) = render.prompts(made, "reversed", 0, 1, seed=0, variant="name")
    assert prompt.whole == f"Operation: reversed\n\nInput: {prompt.query.input}\nOutput: {prompt.answer}"
    with pytest.raises(ValueError, match="capitals has no rule for concept 'reversed', which variant='rule' states"):
        render.prompts(made, "reversed", 2, 1, seed=0, variant="rule")


def test_the_split_is_the_seed_s(tmp_path):
    path = written(tmp_path, rows())
    splits = [family.inputs(jsonl.family(path, seed=seed).test) for seed in (0, 0, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[1:] != [splits[0]] * 3


def test_concepts_with_inputs_of_their_own_have_both_sides(tmp_path):
    apart = [{"input": f"{c}{i}", "output": "x", "concept": c} for c in ("one", "two") for i in range(4)]
    made = jsonl.family(written(tmp_path, apart))
    assert [len(made.test[c]) for c in made.concepts] == [1, 1]
    assert made.answers("one0") == {}


def test_an_input_of_two_outputs_has_no_known_answer(tmp_path):
    path = written(tmp_path, [*rows(), {"input": "word3", "output": "other", "concept": "upper"}])
    made = jsonl.family(path)
    assert made.answers("word3") == {}
    assert made.answers("word4")["upper"] == "WORD4"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'input': 1}", "line 2: not JSON"),
        ('["a", "b", "c"]', "line 2: expected an object with input, output, concept"),
        ('{"input": "a", "concept": "c"}', "line 2: 'output' must be a string that is not empty, found nothing"),
        ('{"input": "a", "output": 3, "concept": "c"}', "line 2: 'output' must be a string that is not empty, found 3"),
        ('{"input": "a", "output": " ", "concept": "c"}', "line 2: 'output' must be a string that is not empty"),
        ('{"input": "a", "output": "b", "concept": null}', "line 2: 'concept' must be .* found None"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = written(tmp_path, [{"input": "a", "output": "b", "concept": "c"}, line])
    with pytest.raises(ValueError, match=rf"capitals.jsonl, {message}"):
        jsonl.family(path)


def test_what_a_file_cannot_give_is_named(tmp_path):
    path = written(tmp_path, rows())
    with pytest.raises(ValueError, match="has the concepts upper, reversed, shuffled; null names 'Null'"):
        jsonl.family(path, null="Null")
    with pytest.raises(ValueError, match="rules names 'lower'"):
        jsonl.family(path, rules={"lower": "Whisper."})
    with pytest.raises(ValueError, match="jsonl.test_share must be above 0 and below 1, got 1"):
        jsonl.family(path, test_share=1)
    with pytest.raises(ValueError, match="capitals.jsonl holds no example"):
        jsonl.family(written(tmp_path, [""]))
    with pytest.raises(ValueError, match="concept 'c' needs at least one input to show and one to ask; it has 1"):
        jsonl.family(written(tmp_path, [{"input": "a", "output": "b", "concept": "c"}]))
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"input": "é", "output": "b", "concept": "c"}'.encode("latin-1"))
    with pytest.raises(ValueError, match="latin.jsonl is not UTF-8"):
        jsonl.family(latin)
