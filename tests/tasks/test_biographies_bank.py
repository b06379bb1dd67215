"""Token banks and items, read back as text and held against the table and the schedule's definition."""

import re
from dataclasses import replace

import numpy as np
import pytest

from jaxconcepts.tasks import biographies, biographies_bank, biographies_items
from jaxconcepts.tasks.biographies_bank import BankConfig
from jaxconcepts.tasks.biographies_encoding import MARKS, NAME_TOKEN, OTHER, VALUE_TOKEN
from jaxconcepts.tasks.biographies_questions import LABELS
from jaxconcepts.tasks.biographies_vocabulary import SPECIAL, vocabulary

SMALL = biographies.Cardinalities(
    first=20, middle=20, last=20, years=1, months=12, days=1, cities=40, universities=60, majors=20, employers=50
)
KINDS = tuple(kind for kind in biographies.KINDS if kind != "reverse")
CONFIGS = {
    "english": BankConfig(window=160, variant="multi3+permute", kinds=KINDS, hint_share=0.5),
    "compact": BankConfig(window=48, form="compact", variant="multi3+permute", kinds=KINDS, hint_share=0.5, passes=2),
}


@pytest.fixture(scope="module")
def people():
    return biographies.people(60, seed=5, cardinalities=SMALL)


@pytest.fixture(scope="module", params=CONFIGS)
def bank(people, request):
    return biographies_bank.bank(people, CONFIGS[request.param])


def items(bank, question):
    """(text, person, tokens, targets) of every item, cut at bos and eos."""
    made = []
    for row in np.flatnonzero(bank.question == question):
        starts = np.flatnonzero(bank.tokens[row] == bank.tokenizer.bos)
        ends = np.flatnonzero(bank.tokens[row] == bank.tokenizer.eos)
        assert len(starts) == len(ends) > 0
        assert (starts[1:] == ends[:-1] + 1).all()
        assert (bank.tokens[row, ends[-1] + 1 :] == bank.tokenizer.pad).all()
        for start, end in zip(starts, ends, strict=True):
            span = slice(start, end + 1)
            (person,) = set(bank.group[row, span].tolist())
            text = bank.tokenizer.decode(bank.tokens[row, span])
            made.append((text, person, bank.tokens[row, span], bank.loss_mask[row, span]))
    return made


def test_every_biography_is_there_once_a_pass(people, bank):
    config = bank.config
    expected = [
        (biographies.biography(people, person, config.variant, seed, config.form), person)
        for person in range(60)
        for seed in range(3)
    ] * config.passes
    assert sorted((text, person) for text, person, _, _ in items(bank, False)) == sorted(expected)
    for _, _, _, targets in items(bank, False):
        assert targets.tolist() == [False] + [True] * (len(targets) - 1)


def test_no_question_is_about_a_held_out_person(people, bank):
    names = {people.name(person) for person in np.flatnonzero(bank.split.held_out)}
    assert len(names) == 30
    assert (bank.split.held_out == ~bank.split.asked).all()
    asked = items(bank, True)
    assert not any(name in text for text, _, _, _ in asked for name in names)
    assert {person for _, person, _, _ in asked} == set(np.flatnonzero(bank.split.asked).tolist())
    partners = bank.asked[bank.asked[:, 1] >= 0, 1]
    assert len(partners) and not set(partners.tolist()) & set(np.flatnonzero(bank.split.held_out).tolist())
    # But what is written about them is read like the others'.
    assert all(any(name in text for text, _, _, _ in items(bank, False)) for name in names)


def test_reversed_questions_do_not_name_a_held_out_person_either(people):
    bank = biographies_bank.bank(people, BankConfig(window=160, kinds=("reverse",), held_out=0.2))
    names = {people.name(person) for person in np.flatnonzero(bank.split.held_out)}
    assert len(names) == 12
    assert not any(name in text for text, _, _, _ in items(bank, True) for name in names)


def test_questions_are_those_of_the_table_half_with_a_hint(people, bank):
    form, hinted = bank.config.form, 0
    rows = iter(items(bank, True))
    for person, partner, label in bank.asked.tolist():
        text, group, tokens, targets = next(rows)
        assert group == person
        kind = LABELS[label].split(":")[0]
        partner = None if partner < 0 else partner
        options = {}
        for hint in (False, True)[: 1 + (kind != "extract")]:
            for question in biographies.ask(people, person, kind, hint, partner, form):
                if question.label == LABELS[label]:
                    options[f"{question.prompt} {question.answer}"] = question.answer, hint
        answer, hint = options[text]
        assert bank.tokenizer.decode(tokens[targets]) == answer
        assert targets[-1] and not targets[0]
        hinted += hint
    assert next(rows, None) is None
    eligible = sum(not LABELS[label].startswith("extract") for label in bank.asked[:, 2])
    # Within three and a half standard deviations of a half.
    assert abs(hinted - eligible / 2) < 1.75 * eligible**0.5


def test_spots_stand_right_before_what_they_name(people, bank):
    form = bank.config.form
    for row, position, person, mark in bank.spots.tolist():
        tokens = bank.tokens[row]
        if MARKS[mark] == "name":
            last = people.name(person).split()[-1]
            assert bank.tokenizer.words[tokens[position]] == last
        elif MARKS[mark] == "answer":
            assert bank.loss_mask[row, position + 1] and not bank.loss_mask[row, position]
        else:
            value = people.value(person, MARKS[mark], form)
            count = len(bank.tokenizer.encode(value)[0])
            assert bank.tokenizer.decode(tokens[position + 1 : position + 1 + count]) == value
    told = bank.spots[~bank.question[bank.spots[:, 0]]]
    assert len(told) == 7 * 60 * 3 * bank.config.passes


def test_words_are_numbered_apart(bank):
    special = bank.tokens < len(SPECIAL)
    assert (bank.words[special] == -1).all()
    assert (bank.words[~special] >= 0).all()
    for row in bank.words:
        numbers = row[row >= 0]
        assert len(set(numbers.tolist())) == len(numbers)


class Letters:
    """A tokenizer of single characters with the space joined to what follows, for texts of more tokens a word."""

    size, pad, bos, eos, mask = 300, 0, 1, 2, 3

    def encode(self, text):
        spans = [match.span() for match in re.finditer(r" ?\S", text)]
        return [10 + ord(text[end - 1]) % 128 for _, end in spans], spans


def test_another_tokenizer_keeps_spots_and_words(people):
    config = BankConfig(window=700, kinds=("extract",))
    letters, words = (biographies_bank.bank(people, config, tokenizer) for tokenizer in (Letters(), None))
    assert len(letters.spots) == len(words.spots)
    for row, position, person, mark in letters.spots.tolist():
        if MARKS[mark] == "name":
            assert letters.tokens[row, position] == 10 + ord(people.name(person)[-1]) % 128
        elif MARKS[mark] != "answer":
            value = people.value(person, MARKS[mark]).replace(" ", "")
            span = letters.tokens[row, position + 1 : position + 1 + len(value)]
            assert span.tolist() == [10 + ord(letter) % 128 for letter in value]
    # As many words as there are words, each of tokens that stand together.
    told = ~letters.question
    count = sum(len(set(row[row >= 0].tolist())) for row in letters.words[told])
    assert count == (words.words[~words.question] >= 0).sum()
    for row in letters.words:
        changes = np.flatnonzero(np.diff(row)) + 1
        runs = [run[0] for run in np.split(row, changes) if run[0] >= 0]
        assert len(runs) == len(set(runs))


def test_persons_do_not_stand_together(people, bank):
    """A person's own texts follow each other as seldom as chance has it: 2 of 179 neighbours, mean 2."""
    persons = np.array([person for _, person, _, _ in items(bank, False)][:180])
    assert (persons[1:] == persons[:-1]).sum() < 10
    assert len(set(persons[:40].tolist())) > 20


def test_a_bank_is_a_function_of_its_inputs(people, bank):
    again = biographies_bank.bank(people, bank.config)
    assert again.hash == bank.hash
    assert (again.tokens == bank.tokens).all()
    others = [replace(bank.config, seed=1), replace(bank.config, hint_share=0.4), replace(bank.config, held_out=0.4)]
    hashes = {biographies_bank.bank(people, config).hash for config in others}
    hashes.add(biographies_bank.bank(biographies.people(60, seed=6, cardinalities=SMALL), bank.config).hash)
    assert len(hashes | {bank.hash}) == 5


def test_the_mixed_stage_has_its_share_by_tokens(bank):
    drawn = biographies_bank.schedule(bank, "mixed", 40_000, seed=3)
    lengths = (bank.group >= 0).sum(axis=1)[drawn]
    share = lengths[bank.question[drawn]].sum() / lengths.sum()
    # Four standard errors of 40 000 draws at .8.
    assert share == pytest.approx(0.8, abs=0.008)
    assert (biographies_bank.schedule(bank, "mixed", 1000, seed=3) == drawn[:1000]).all()
    assert not (biographies_bank.schedule(bank, "mixed", 1000, seed=4) == drawn[:1000]).all()


def test_windows_of_a_stage_come_equally_often(bank):
    assert biographies_bank.REGIMES == {"mixed": ("mixed",), "staged": ("biographies", "questions")}
    for stage, question in (("biographies", False), ("questions", True)):
        count = int((bank.question == question).sum())
        drawn = biographies_bank.schedule(bank, stage, 3 * count)
        assert (np.bincount(drawn, minlength=len(bank.tokens)) == 3 * (bank.question == question)).all()
        assert not (drawn[:count] == drawn[count : 2 * count]).all()
    told = biographies_bank.schedule(bank, "biographies", 3 * int((~bank.question).sum()))
    assert biographies_bank.exposures(bank, told).tolist() == [9 * bank.config.passes] * 60


def test_celebrities_have_many_texts_and_the_others_one(people):
    config = BankConfig(window=160, celebrities=0.25, celebrity_variant="multi4+permute", held_out=0.2)
    bank = biographies_bank.bank(people, config)
    assert bank.split.celebrity.sum() == 15
    assert bank.split.asked.sum() == 12
    assert not (bank.split.asked & ~bank.split.celebrity).any()
    made = items(bank, False)
    for person in range(60):
        texts = {text for text, group, _, _ in made if group == person}
        assert len(texts) == (4 if bank.split.celebrity[person] else 1)
    everyone = biographies_bank.bank(people, replace(config, held_out=0.0)).split
    assert (everyone.asked == everyone.celebrity).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 0}, "bank.window must be a positive integer, got 0"),
        ({"qa_share": 1.0}, r"bank.qa_share must be in \[0, 1\), got 1.0"),
        ({"qa_share": -0.1}, r"bank.qa_share must be in \[0, 1\), got -0.1"),
        ({"hint_share": 1.1}, r"bank.hint_share must be in \[0, 1\], got 1.1"),
        ({"held_out": 1.0}, r"bank.held_out must be in \[0, 1\), got 1.0"),
        ({"held_out": 0.0}, "bank.held_out = 0.0 of 60 people leaves 60 to ask about and 0 held out"),
        ({"held_out": 0.999}, "bank.held_out = 0.999 of 60 people leaves 0 to ask about and 60 held out"),
        ({"celebrities": 0.001}, "bank.celebrities = 0.001 of 60 people makes 0"),
        ({"kinds": ()}, "bank.kinds must be distinct and not empty"),
        ({"kinds": ("extract", "extract")}, "bank.kinds must be distinct"),
        ({"kinds": ("recall",)}, "kind must be one of .*got 'recall'"),
        ({"kinds": ("compare",), "held_out": 0.98}, "need two people to ask about in training, got 1"),
        ({"variant": "many"}, "variant must be made of .*got 'many'"),
        ({"window": 20}, "bank.window must be at least [0-9]{2}, the tokens of the longest biography.*got 20"),
        ({"passes": 0}, "bank.passes must be a positive integer, got 0"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_a_bank_that_cannot_be_is_refused(people, fields, message):
    with pytest.raises(ValueError, match=message):
        biographies_bank.bank(people, BankConfig(**{"window": 160} | fields))


def test_a_stage_or_count_that_cannot_be_is_refused(bank):
    with pytest.raises(ValueError, match="stage must be one of mixed, biographies, questions, got 'both'"):
        biographies_bank.schedule(bank, "both", 3)
    with pytest.raises(ValueError, match="count must be a positive integer, got 0"):
        biographies_bank.schedule(bank, "mixed", 0)


def test_the_vocabulary_reads_every_text_of_another_world():
    for form in biographies.FORMS:
        words = vocabulary(biographies.people(3, seed=0), form)
        other = biographies.people(400, seed=8)
        assert words.words == vocabulary(other, form).words
        assert len(set(words.words)) == words.size
        for person in range(0, 400, 5):
            for variant in ("multi9+permute", "multi3+combined+reverse", "fullname"):
                text = biographies.biography(other, person, variant, person, form)
                assert words.decode(words.encode(text)[0]) == text
            for kind in biographies.KINDS:
                for prompt, answer in biographies.questions(other, person, kind=kind, form=form):
                    assert words.decode(words.encode(f"{prompt} {answer}")[0]) == f"{prompt} {answer}"
    with pytest.raises(ValueError, match="not 'Zebra'"):
        words.encode("Zebra")
    with pytest.raises(ValueError, match=r"tokens must be in 0 ... \d+, got -1"):
        words.decode([-1])


def test_items_carry_labels_of_whole_values_and_first_tokens():
    people = biographies.people(300, seed=1)
    words = vocabulary(people)
    persons = list(range(0, 300, 7))
    items = biographies_items.biography_items(people, persons, words, "multi2+permute", seed=1)
    assert items.tokens.shape[0] == len(persons) == len(items.group)
    assert items.group.tolist() == persons
    assert items.spots.shape == (len(persons), 7)
    assert (np.diff(items.spots[:, 1:]) > 0).all()
    for i, person in enumerate(persons):
        assert MARKS[items.marks[i, 0]] == "name"
        assert words.words[items.tokens[i, items.spots[i, 0]]] == people.name(person).split()[-1]
        assert sorted(MARKS[mark] for mark in items.marks[i, 1:]) == sorted(biographies.ATTRIBUTES)
        for position, mark in zip(items.spots[i, 1:], items.marks[i, 1:], strict=True):
            first = words.encode(people.value(person, MARKS[mark]))[0][0]
            assert items.tokens[i, position + 1] == first
    for name, (labels, classes) in items.concepts.items():
        field, _, first = name.partition("/")
        values = [people.value(person, field) for person in persons]
        if first:
            values = [value.split()[0] for value in values]
        assert labels.shape == (len(persons),)
        assert labels.min() >= 0 and labels.max() < classes
        # Labels are equal where the values are, and only there.
        assert len(set(zip(values, labels.tolist(), strict=True))) == len(set(values)) == len(set(labels.tolist()))
    parts = {"birth_month", "birth_day", "birth_year"}
    assert set(items.concepts) == parts | set(biographies.ATTRIBUTES[1:]) | {
        *("university/first_token", "major/first_token")
    }


@pytest.mark.parametrize("variant", ["single", "multi2+permute+combined", "fullname"])
@pytest.mark.parametrize("form", biographies.FORMS)
def test_tokens_of_names_and_values_are_known(variant, form):
    people = biographies.people(40, seed=1)
    words = vocabulary(people, form)
    items = biographies_items.biography_items(people, range(40), words, variant, 1, form)
    for person, (tokens, parts) in enumerate(zip(items.tokens, items.parts, strict=True)):
        assert words.decode(tokens[parts == NAME_TOKEN]) == people.name(person)
        values = [people.value(person, attribute, form) for attribute in biographies.ATTRIBUTES]
        counted = sorted(word for value in values for word in words.decode(words.encode(value)[0]).split())
        stated = sorted(words.decode([int(token)]) for token in tokens[parts == VALUE_TOKEN])
        pronoun = [word for word in stated if word.lower() in ("he", "his", "she", "her")]
        assert len(pronoun) == (variant != "fullname")
        rest = [word for word in stated if word not in pronoun]
        assert "".join(sorted("".join(rest))) == "".join(sorted("".join(counted)))
    assert (biographies_items.name_items(people, [0], words, form).parts == OTHER).all()


def test_the_name_alone_is_asked_at_its_end(people):
    words = vocabulary(people, "compact")
    items = biographies_items.name_items(people, [3, 9], words, "compact")
    assert [words.decode(row) for row in items.tokens] == [people.name(3), people.name(9)]
    assert items.tokens[:, 0].tolist() == [words.bos] * 2
    assert items.tokens[[0, 1], items.spots[:, 0]].tolist() == [words.eos] * 2
    assert "birth_month" in items.concepts and "birth_year" not in items.concepts


@pytest.mark.parametrize("kind", biographies.KINDS)
def test_question_items_are_the_questions(people, kind):
    words = vocabulary(people)
    persons = [2, 8, 30, 41]
    items = biographies_items.question_items(people, persons, kind, words)
    texts = [words.decode(row) for row in items.tokens]
    for row, (text, person) in enumerate(zip(texts, items.group.tolist(), strict=True)):
        label = LABELS[items.questions[row]]
        assert label.split(":")[0] == kind
        answer = words.decode(items.tokens[row][items.loss_mask[row]])
        spot = items.spots[row, 0]
        assert items.loss_mask[row, spot + 1] and not items.loss_mask[row, : spot + 1].any()
        prompt = words.decode(items.tokens[row, : spot + 1])
        names = [other for other in persons if people.name(other) in prompt]
        partner = next((other for other in names if other != person), None)
        asked = biographies.ask(people, person, kind, partner=partner if kind in ("compare", "subtract") else None)
        assert (prompt, answer) in [(question.prompt, question.answer) for question in asked if question.label == label]
        assert text == f"{prompt} {answer}"
    if kind != "reverse":
        assert sorted(set(items.group.tolist())) == persons


def test_items_that_cannot_be_are_refused(people):
    words = vocabulary(people)
    with pytest.raises(ValueError, match="persons must be distinct and not empty"):
        biographies_items.biography_items(people, [], words)
    with pytest.raises(ValueError, match="persons must be an integer in 0 ... 59, got 60"):
        biographies_items.name_items(people, [60], words)
    with pytest.raises(ValueError, match="persons must be at least 2 for kind 'compare', got 1"):
        biographies_items.question_items(people, [3], "compare", words)


def test_a_bank_on_disk_is_the_same_and_goes_on(tmp_path):
    people = biographies.people(12, seed=3, cardinalities=biographies.Cardinalities(months=6, years=2, cities=4))
    config = BankConfig(window=48, form="compact", kinds=("extract", "compare"), passes=3)
    expected, seen = biographies_bank.bank(people, config), []
    progress = lambda *numbers: seen.append(numbers)  # noqa: E731
    written = biographies_bank.write(tmp_path / "bank", people, config, progress=progress)
    assert seen == [(done, 3) for done in range(4)] and written.hash == expected.hash
    for name in ("tokens", "loss_mask", "group", "words", "question", "spots", "asked"):
        np.testing.assert_array_equal(getattr(written, name), getattr(expected, name))
    next((tmp_path / "bank").glob("part-000001-*")).unlink()
    seen.clear()
    assert biographies_bank.write(tmp_path / "bank", people, config, progress=progress).hash == expected.hash
    assert seen == [(2, 3), (3, 3)]
    with pytest.raises(ValueError, match=r"holds another bank.*task\.passes: was 3, now 2"):
        biographies_bank.write(tmp_path / "bank", people, replace(config, passes=2))
