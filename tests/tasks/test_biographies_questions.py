"""Every answer recomputed by a second route: the prompt is parsed, and the table filtered by what it says."""

import re

import polars as pl
import pytest

from jaxconcepts.tasks import biographies
from jaxconcepts.tasks.biographies_questions import LABELS

MONTHS = [
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
]
NAME = r"([A-Z][a-z]+ [A-Z][a-z]+ [A-Z][a-z]+)"
HINT = " State the facts first."
SMALL = biographies.Cardinalities(
    first=8, middle=8, last=8, years=1, months=12, days=1, cities=12, universities=15, majors=10, employers=12
)
PHRASES = {"birth date": "birth_date", "birth city": "birth_city", "university": "university", "major": "major"} | {
    "employer": "employer",
    "city of work": "employer_city",
}
EXTRACT = {
    "What is the birth date of": "birth_date",
    "In which city was (.*) born": "birth_city",
    "Which university did": "university",
    "What major did": "major",
    "Which company employs": "employer",
    "In which city does": "employer_city",
}


@pytest.fixture(scope="module")
def people():
    return biographies.people(1000, seed=0)


def row(people, name):
    rows = people.table.filter(pl.col("name") == name)
    assert len(rows) == 1
    return rows.row(0, named=True)


def recomputed(people, kind, prompt):
    """The answer that the table gives to an English prompt."""
    if kind == "reverse":
        clauses = dict(re.findall(r"whose ([a-z ]+?) is (.+?)(?=, whose| and whose|\?)", prompt))
        rows = people.table.filter(*(pl.col(PHRASES[phrase]) == value for phrase, value in clauses.items()))
        assert len(rows) == 1
        return rows["name"][0]
    rows = [row(people, name) for name in re.findall(NAME, prompt.split(" ", 1)[1])]
    number = ("birth_month", "major_rank")["major" in prompt]
    if kind == "extract":
        return next(rows[0][field] for start, field in EXTRACT.items() if re.match(start, prompt))
    if kind == "dual":
        first, second = re.match("What are the (.*) and the (.*) of ", prompt).groups()
        return f"{rows[0][PHRASES[first]]}; {rows[0][PHRASES[second]]}"
    if kind == "partial":
        field = re.match("What is the (birth [a-z]+) of", prompt)[1].replace(" ", "_")
        return MONTHS[rows[0][field] - 1] if field == "birth_month" else str(rows[0][field])
    if kind == "classify":
        if "even or odd" in prompt:
            return "odd" if MONTHS.index(rows[0]["birth_date"].split()[0]) in range(0, 12, 2) else "even"
        return str(rows[0][number] % int(re.search(r"modulo (\d+)\?", prompt)[1]))
    assert len(rows) == 2
    difference = rows[0][number] - rows[1][number]
    return str(difference) if kind == "subtract" else ("no", "yes")[difference > 0]


COUNTS = {"extract": 6, "classify": 6, "compare": 2, "subtract": 2, "reverse": 10, "partial": 3, "dual": 6}


@pytest.mark.parametrize("kind", biographies.KINDS)
def test_answers_are_those_of_the_table(people, kind):
    answers = set()
    for person in range(0, 1000, 9):
        asked = biographies.questions(people, person, kind=kind)
        if kind != "reverse":
            assert len(asked) == COUNTS[kind]
        for prompt, answer in asked:
            assert answer == recomputed(people, kind, prompt)
            if kind == "reverse":
                assert answer == people.table["name"][person]
            else:
                assert people.table["name"][person] in prompt
            answers.add(answer)
    if kind == "compare":
        assert answers == {"yes", "no"}


@pytest.mark.parametrize("kind", biographies.KINDS)
def test_a_hint_writes_the_facts_before_the_same_answer(people, kind):
    for person in range(0, 1000, 49):
        plain = biographies.ask(people, person, kind)
        hinted = biographies.questions(people, person, kind=kind, hint=True)
        assert [prompt.removesuffix(HINT) for prompt, _ in hinted] == [question.prompt for question in plain]
        for question, (prompt, answer) in zip(plain, hinted, strict=True):
            assert prompt.endswith(HINT)
            facts, _, final = answer.rpartition(": ")
            assert final == question.answer == recomputed(people, kind, question.prompt)
            named = [row(people, name) for name in re.findall(NAME, question.prompt.split(" ", 1)[1])]
            holders = named if kind != "reverse" else [row(people, final)]
            stated = [fact for fact in facts.split("; ") if fact]
            if kind == "reverse":
                assert all(fact not in question.prompt for fact in stated if fact != holders[0]["employer_city"])
            values = {str(value) for holder in holders for value in holder.values()} | set(MONTHS)
            assert set(stated) <= values
            assert stated or (kind == "reverse" and len(question.prompt.split("whose")) == 7)
            if question.label.split(":")[1] == "birth_month" and kind != "partial":
                assert stated == [MONTHS[holder["birth_month"] - 1] for holder in holders]
            if question.label.startswith(("classify:major", "compare:major", "subtract:major")):
                assert stated == [holder["major"] for holder in holders]
            if kind == "extract":
                assert stated == [final]
            if kind == "partial":
                assert stated == [holders[0]["birth_date"]]


@pytest.mark.parametrize("kind", biographies.KINDS)
@pytest.mark.parametrize("hint", [False, True])
def test_the_compact_form_asks_and_answers_the_same(people, kind, hint):
    for person in range(0, 1000, 101):
        english = biographies.ask(people, person, kind, hint)
        compact = biographies.ask(people, person, kind, hint, form="compact")
        assert [question.label for question in english] == [question.label for question in compact]
        for one, other in zip(english, compact, strict=True):
            assert other.label in LABELS
            start = "? hint " if hint else "? "
            assert other.prompt.startswith(f"{start}{other.label} ")
            assert other.prompt.endswith(" =")
            words = one.answer.replace(";", "").replace(":", "").replace(",", "").split()
            assert other.answer.replace("_", " ").split() == words
            if kind != "reverse":
                assert all(people.name(person) in other.prompt for person in other.people)


def test_reversed_questions_fit_one_person_only():
    people = biographies.people(300, seed=2, cardinalities=SMALL)
    asked = [biographies.questions(people, person, kind="reverse") for person in range(300)]
    assert min(map(len, asked)) < 8
    for person, questions in enumerate(asked):
        assert all(recomputed(people, "reverse", prompt) == people.name(person) for prompt, _ in questions)
    # Twelve birth dates among 300 people tell nobody apart.
    assert not any(prompt.count("whose") == 1 for questions in asked for prompt, _ in questions)


def test_a_small_world_leaves_out_what_cannot_be_asked():
    people = biographies.people(20, cardinalities=SMALL)
    assert [question.label for question in biographies.ask(people, 3, "partial")] == ["partial:birth_month"]
    labels = [question.label for question in biographies.ask(people, 3, "classify")]
    assert labels == ["classify:birth_month:2", "classify:birth_month:6", "classify:birth_month:12", "classify:major:5"]


def test_synonyms_and_partners(people):
    assert biographies.questions(people, 17, kind="difference") == biographies.questions(people, 17, kind="subtract")
    assert biographies.questions(people, 17, kind="inverse") == biographies.questions(people, 17, kind="reverse")
    partners = {biographies.ask(people, person, "compare")[0].people[1] for person in range(300)}
    assert len(partners) > 200
    assert all(biographies.ask(people, person, "compare")[0].people[1] != person for person in range(300))
    asked = biographies.ask(people, 17, "subtract", partner=5)
    assert all(people.name(5) in question.prompt for question in asked)
    swapped = biographies.ask(people, 5, "subtract", partner=17)
    assert [int(question.answer) for question in asked] == [-int(question.answer) for question in swapped]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"kind": "recall"}, "kind must be one of extract, classify,.*got 'recall'"),
        ({"kind": None}, "kind must be one of .*got None"),
        ({"kind": "extract", "partner": 3}, "partner must be None for kind 'extract'.*got 3"),
        ({"kind": "compare", "partner": 17}, "partner must be another person than person = 17"),
        ({"kind": "compare", "partner": 1000}, "partner must be an integer in 0 ... 999, got 1000"),
        ({"kind": "extract", "form": "latin"}, "form must be one of english, compact, got 'latin'"),
        ({"kind": "compare", "seed": -3}, "seed must be an integer of at least 0, got -3"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(people, call, message):
    with pytest.raises(ValueError, match=message):
        biographies.questions(people, 17, **call)


def test_one_person_cannot_be_compared():
    with pytest.raises(ValueError, match="need a second person"):
        biographies.questions(biographies.people(1), 0, kind="compare")
