"""Bits of people, against the closed form and a model that is a table of probabilities."""

import math

import numpy as np
import pytest

from jaxconcepts.tasks import biographies
from jaxconcepts.tasks import biographies_capacity as capacity

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
