"""People and their biographies: against the sizes of arXiv 2309.14316, and read back from the texts."""

import doctest
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom, chi2_contingency, chisquare

from jaxconcepts.tasks import biographies, biographies_values
from jaxconcepts.tasks.biographies_templates import NAME_LAST
from jaxconcepts.tasks.biographies_text import templates

SIZES = {"first": 400, "middle": 400, "last": 1000, "cities": 200, "universities": 300, "majors": 100, "employers": 263}
# Tests of frequencies fail by chance once in a thousand; the seeds are fixed, so they pass or fail for good.
SIGNIFICANCE = 1e-3
SMALL = biographies.Cardinalities(
    first=6, middle=5, last=4, years=1, months=12, days=1, cities=40, universities=60, majors=20, employers=50
)


@pytest.fixture(scope="module")
def world():
    return biographies.people(20_000, seed=0)


@pytest.fixture(scope="module")
def people():
    return biographies.people(1000, seed=0)


def test_the_lists_have_the_published_sizes_and_no_entry_twice():
    for field, size in SIZES.items():
        assert len(biographies_values.values(field)) == len(set(biographies_values.values(field))) == size
        assert getattr(biographies.Cardinalities(), field) == size
    cards = biographies.Cardinalities()
    assert (cards.years, cards.months, cards.days) == (200, 12, 28)
    assert cards.names == 400 * 400 * 1000


def test_names_are_unique_and_everyone_has_every_attribute(world):
    table = world.table
    assert table["name"].n_unique() == len(table) == len(world) == 20_000
    assert table["person"].to_list() == list(range(20_000))
    assert (table["first"] + " " + table["middle"] + " " + table["last"] == table["name"]).all()
    assert not any(table.null_count().row(0))
    # A world as large as its names uses each once.
    every = biographies.people(SMALL.names, seed=1, cardinalities=SMALL)
    assert every.table["name"].n_unique() == SMALL.names


def test_values_are_uniform_over_all_that_there_are(world):
    table = world.table
    sizes = {"birth_month": 12, "birth_day": 28, "birth_year": 200, "birth_city": 200, "university": 300}
    for field, size in (sizes | {"major": 100, "employer": 263, "pronoun": 2, "first": 400, "last": 1000}).items():
        counts = table[field].value_counts()["count"].to_numpy()
        assert len(counts) == size
        assert chisquare(counts).pvalue > SIGNIFICANCE
    assert table["birth_day"].max() == 28
    assert (table["birth_year"].min(), table["birth_year"].max()) == (1900, 2099)


def test_attributes_are_independent_but_for_the_employers_city(world):
    table = world.table
    largest = table["employer_city"] == table["employer_city"].mode()[0]
    fields = table.select(
        "birth_month", "pronoun", late=table["birth_year"] > 2000, low=table["major_rank"] < 50, largest=largest
    )
    for one, other in combinations(fields.columns, 2):
        counts = fields.group_by(one, other).len().pivot(other, index=one, values="len").drop(one).to_numpy()
        assert chi2_contingency(counts).pvalue > SIGNIFICANCE
    tied = table.group_by("employer").agg(n=table["employer_city"].n_unique())
    assert len(tied) == 263
    cities = dict(table.select("employer", "employer_city").iter_rows())
    assert all(cities[employer] == city for employer, city in table.select("employer", "employer_city").iter_rows())
    # The same tie in every world.
    other = biographies.people(5000, seed=9).table.select("employer", "employer_city").iter_rows()
    assert all(cities[employer] == city for employer, city in other)


def test_one_city_has_36_of_263_employers(world):
    cities = dict(world.table.select("employer", "employer_city").iter_rows())
    counts = Counter(cities.values()).most_common()
    assert counts[0][1] == 36
    assert counts[1][1] <= 2
    assert biographies.largest_city_share(biographies.Cardinalities()) == pytest.approx(36 / 263)
    # So many people work there, within a binomial's middle 99.9 %.
    low, high = binom.interval(1 - SIGNIFICANCE, len(world), 36 / 263)
    assert low <= round(world.majority("employer_city") * len(world)) <= high
    largest = world.table["employer_city"].value_counts()["count"].max()
    assert world.majority("employer_city") == largest / len(world)


def test_a_world_is_a_function_of_count_and_seed():
    again = biographies.people(50, seed=3)
    assert again.table.equals(biographies.people(50, seed=3).table)
    assert not again.table.equals(biographies.people(50, seed=4).table)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"count": 0}, "people must be a positive integer, got 0"),
        ({"count": 2.5}, "people must be a positive integer, got 2.5"),
        ({"count": True}, "people must be a positive integer, got True"),
        ({"count": 160_000_001}, r"400 \* 400 \* 1000 = 160000000.*got 160000001"),
        ({"count": 3, "seed": -1}, "seed must be an integer of at least 0, got -1"),
        ({"count": 121, "cardinalities": SMALL}, r"6 \* 5 \* 4 = 120"),
    ],
)
def test_a_world_that_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        biographies.people(**call)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"first": 401}, r"cardinalities.first must be an integer in 1 ... 400, got 401"),
        ({"employers": 1}, r"cardinalities.employers must be an integer in 2 ... 263, got 1"),
        ({"days": 0}, r"cardinalities.days must be an integer in 1 ... 28, got 0"),
        ({"years": 1, "months": 1, "days": 1}, "one birth date"),
        ({"majors": 3.0}, "cardinalities.majors must be an integer"),
    ],
)
def test_cardinalities_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        biographies.Cardinalities(**fields)


@pytest.mark.parametrize("form", biographies.FORMS)
def test_every_attribute_has_thirty_wordings_of_one_value_and_one_mention(form):
    assert set(templates(form)) == set(biographies.ATTRIBUTES)
    for wordings in templates(form).values():
        assert len(wordings) == len(set(wordings)) >= 30
        for text in wordings:
            assert text.count("{value}") == 1
            assert text.count("{subject}") + text.count("{possessive}") == 1
            assert len(re.findall("[{}]", text)) == 4
    assert all(text.count("{name}") == 1 for text in NAME_LAST)


VARIANTS = (
    "single",
    "permute",
    "multi5",
    "multi5+permute",
    "permute5",
    "multi3+fullname",
    "combined",
    "multi2+reverse",
)


def sentences(text, form):
    return re.split(r"(?<=\.) ", text) if form == "english" else re.split(r"(?<= \.) ", text)


@pytest.mark.parametrize("form", biographies.FORMS)
@pytest.mark.parametrize("variant", (*VARIANTS, "multi4+permute+combined+fullname", "permute+combined+reverse"))
def test_a_text_states_each_value_once_where_it_says(people, variant, form):
    for person in range(0, 1000, 37):
        row = people.table.row(person, named=True)
        made = biographies.compose(people, person, variant, 1, form)
        assert made.text == biographies.biography(people, person, variant=variant, seed=1, form=form)
        for attribute in biographies.ATTRIBUTES:
            value = str(row[attribute])
            if form == "compact":
                value = value.replace(", ", " ") if attribute == "birth_date" else value.replace(" ", "_")
            start, end = made.values[attribute]
            assert made.text[start:end] == value
        assert made.text[slice(*made.name)] == row["name"]
        assert made.text.find(row["name"]) == made.name[0]
        parts = sentences(made.text, form)
        assert len(parts) == (3 if "combined" in variant else 6) + ("reverse" in variant)
        names = 6 if "fullname" in variant else 1
        assert made.text.count(row["name"]) == names
        assert (row["name"] in parts[-1]) == ("reverse" in variant or "fullname" in variant)
        assert (row["name"] in parts[0]) == ("reverse" not in variant)
        pronouns = re.findall(r"\b(he|his|she|her)\b", made.text.lower())
        expected = {"he": {"he", "his"}, "she": {"she", "her"}}[row["pronoun"]]
        assert set(pronouns) <= expected
        assert len(pronouns) == (0 if "fullname" in variant else 6 - ("reverse" not in variant))
        assert all(part[0].isupper() for part in parts) or form == "compact"


def order(made):
    return tuple(sorted(made.values, key=lambda attribute: made.values[attribute][0]))


def test_variants_differ_in_what_they_say(people):
    def texts(variant, count=12, person=17):
        return {biographies.biography(people, person, variant=variant, seed=seed) for seed in range(count)}

    counts = {"single": 1, "multi5": 5, "permute": 1, "permute5": 5, "multi5+permute": 5}
    assert {variant: len(texts(variant)) for variant in counts} == counts
    assert len(texts("multi12")) == 12
    fixed = [biographies.compose(people, 17, "multi5", seed) for seed in range(5)]
    assert {order(made) for made in fixed} == {biographies.ATTRIBUTES}
    moved = [biographies.compose(people, 17, "multi5+permute", seed) for seed in range(5)]
    assert len({order(made) for made in moved}) == 5
    shuffled = [biographies.compose(people, 17, "permute5+fullname", seed) for seed in range(5)]
    assert len({order(made) for made in shuffled}) == 5
    # The same sentences, but for the capital at the start of each, in five orders.
    assert len({str(sorted(text.lower() for text in sentences(made.text, "english"))) for made in shuffled}) == 1
    # A person's five wordings differ in every sentence.
    parts = [sentences(made.text, "english") for made in fixed]
    assert all(len({part[i] for part in parts}) == 5 for i in range(6))


def test_orders_and_wordings_are_uniform_over_people(world):
    made = [biographies.compose(world, person, "permute") for person in range(3000)]
    first = Counter(order(one)[0] for one in made)
    assert chisquare([first[attribute] for attribute in biographies.ATTRIBUTES]).pvalue > SIGNIFICANCE
    start = Counter(one.text[: one.values[order(one)[0]][0]].replace(one.text[slice(*one.name)], "#") for one in made)
    assert len(start) > 150


def test_a_person_has_the_same_texts_in_any_order_of_asking(people):
    late = biographies.biography(people, 17, variant="multi5+permute", seed=3)
    assert late == biographies.biography(biographies.people(1000, seed=0), 17, variant="multi5+permute", seed=3)
    assert late == biographies.biography(people, 17, variant="multi5+permute", seed=8)
    assert late != biographies.biography(people, 17, variant="multi5+permute", seed=4)
    # The first of several versions is the single one.
    assert biographies.biography(people, 17) == biographies.biography(people, 17, variant="multi5", seed=0)


def test_a_small_world_in_compact_form_has_one_token_a_value():
    people = biographies.people(100, seed=0, cardinalities=SMALL)
    for person in range(100):
        made = biographies.compose(people, person, "multi2", 1, "compact")
        assert len(made.text.split()) == 3 + 6 * 4 + 5
        assert all(" " not in made.text[start:end] for start, end in made.values.values())


MALFORMED = ("", "multi", "multi0", "multi-1", "multi99999", "MULTI5", "shuffle", "multi5 permute", None, 5)
CONTRADICTORY = ("multi5+multi5", "single+multi5", "fullname+reverse", "multi5+permute3", "combined+combined")


@pytest.mark.parametrize("variant", (*MALFORMED, *CONTRADICTORY))
def test_an_unknown_variant_is_refused(people, variant):
    with pytest.raises(ValueError, match=r"variant must .*got"):
        biographies.biography(people, 17, variant=variant)


@pytest.mark.parametrize("person", [-1, 1000, 1.5, "17", None, True])
def test_a_person_outside_the_table_is_refused(people, person):
    with pytest.raises(ValueError, match=re.escape(f"person must be an integer in 0 ... 999, got {person!r}")):
        biographies.biography(people, person)
    with pytest.raises(ValueError, match="person must be an integer in 0 ... 999"):
        biographies.questions(people, person)


def test_numbers_of_numpy_are_accepted_and_other_forms_refused(people):
    assert biographies.biography(people, np.int64(17)) == biographies.biography(people, 17)
    with pytest.raises(ValueError, match="form must be one of english, compact, got 'french'"):
        biographies.biography(people, 17, form="french")


def test_the_page_of_the_documentation_is_true():
    page = Path(__file__).parents[2] / "docs" / "biographies.md"
    results = doctest.testfile(str(page), module_relative=False)
    assert results.attempted >= 10 and results.failed == 0
