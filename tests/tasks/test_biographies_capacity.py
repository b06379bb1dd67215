"""Bits of people, against the closed form and a model that is a table of probabilities."""

import math

import numpy as np
import pytest

from jaxconcepts.tasks import biographies, biographies_items, biographies_values
from jaxconcepts.tasks import biographies_capacity as capacity
from jaxconcepts.tasks.biographies_vocabulary import vocabulary

SMALL = biographies.Cardinalities(
    first=2, middle=2, last=4, years=1, months=4, days=1, cities=2, universities=2, majors=2, employers=2
)


def test_a_person_of_the_default_world_has_58_bits():
    bits = capacity.bits_a_person(100_000)
    assert bits.name == pytest.approx(math.log2(1600), abs=1e-12)
    assert round(bits.name, 2) == 10.64
    assert round(bits.values, 1) == 47.6
    assert round(bits.total, 1) == 58.2
    possible = 200 * 12 * 28 * 200 * 300 * 100 * 263 * 2
    assert bits.values == pytest.approx(math.log2(possible), abs=1e-12)


def test_the_number_of_distinct_persons_is_the_bits_of_the_values():
    """Every combination of values of a small world, enumerated: the city of work and the name's order add none."""
    people = biographies.people(16, cardinalities=SMALL)
    assert 2 ** capacity.bits_a_person(16, SMALL).values == pytest.approx(4 * 2 * 2 * 2 * 2 * 2)
    assert capacity.bits_a_person(16, SMALL).name == 0
    assert people.table.select("employer", "employer_city").unique().height <= 2


def test_a_perfect_model_stores_all_and_a_uniform_one_nothing():
    people, cards = 800, biographies.Cardinalities()
    perfect = capacity.stored_bits(people, math.log(people), 0.0)
    assert perfect == pytest.approx(people * capacity.bits_a_person(people).total)
    uniform = capacity.stored_bits(people, math.log(cards.names), capacity.bits_a_person(people).values * math.log(2))
    assert uniform == pytest.approx(0, abs=1e-6)
    assert capacity.stored_bits(people, 100.0, 100.0) == 0
    # A name's loss below log N is luck of a finite sample: it counts no more than there is.
    assert capacity.stored_bits(people, 0.0, 0.0) == perfect


def test_a_model_that_knows_some_people_stores_their_share():
    """Knows half of the people's values for certain and guesses the rest: the mean loss is half of a guess's."""
    rng = np.random.default_rng(0)
    people, values = 400, capacity.bits_a_person(400).values
    known = rng.permutation(people) < people // 2
    losses = np.where(known, 0.0, values * math.log(2))
    names = math.log(biographies.Cardinalities().names)
    assert capacity.stored_bits(people, names, losses.mean()) == pytest.approx(people / 2 * values)


def test_bits_a_parameter_and_its_ceiling():
    stored = capacity.bits_a_parameter(1000, math.log(1000), 3.0, 50_000)
    assert stored == pytest.approx(1000 * (capacity.bits_a_person(1000).total - 3 / math.log(2)) / 50_000)
    assert capacity.ceiling(1000, 50_000) == pytest.approx(1000 * (math.log2(1.6e5) + 47.591623669) / 50_000)
    assert stored < capacity.ceiling(1000, 50_000)


def test_losses_of_tokens_are_summed_by_part():
    """A model that knows the parts' sizes and no more: log of the choices at each token, in any order of sentences."""
    people = biographies.people(50, seed=0)
    words = vocabulary(people, "compact")
    items = biographies_items.biography_items(people, range(50), words, "multi2+permute", 1, "compact")
    choices = {word: math.log(2) for word in ("he", "she")}
    for field, size in (("cities", 200), ("universities", 300), ("majors", 100), ("employers", 263)):
        choices |= {value.replace(" ", "_"): math.log(size) for value in biographies_values.values(field)}
    losses = np.zeros(items.tokens.shape)
    for row, (tokens, parts) in enumerate(zip(items.tokens, items.parts, strict=True)):
        for position in np.flatnonzero(parts):
            word = words.words[tokens[position]]
            # A name's part, a month, a day and a year are not in the lists above; the year is larger than any day.
            date = math.log(200 if word.isdigit() and int(word) > 31 else 28 if word.isdigit() else 12)
            losses[row, position] = math.log(1000) if parts[position] == 1 else choices.get(word, date)
    losses[items.parts == 0] = 7.0
    name, values = capacity.losses_a_person(losses, items.parts)
    assert name == pytest.approx(3 * math.log(1000))
    # The city of work is counted as if it were free: its 200 choices are all that is above S0.
    bits = capacity.bits_a_person(50).values + math.log2(200)
    assert values == pytest.approx(bits * math.log(2))


def test_losses_that_cannot_be_summed_are_refused():
    with pytest.raises(ValueError, match=r"token_losses must have the shape of parts, \(2, 3\); got \(3, 2\)"):
        capacity.losses_a_person(np.zeros((3, 2)), np.ones((2, 3), int))
    with pytest.raises(ValueError, match="in every row; 2 is missing in one"):
        capacity.losses_a_person(np.zeros((2, 3)), np.array([[1, 2, 0], [1, 1, 0]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((0, 1.0, 1.0, 5), "people must be an integer in 1 ... 160000000 .*got 0"),
        ((160_000_001, 1.0, 1.0, 5), "got 160000001"),
        ((10, -1.0, 1.0, 5), "name_loss must be a finite number of nats of at least 0, got -1.0"),
        ((10, 1.0, float("nan"), 5), "value_loss must be .*got nan"),
        ((10, 1.0, 1.0, 0), "parameters must be a positive integer, got 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        capacity.bits_a_parameter(*call)
