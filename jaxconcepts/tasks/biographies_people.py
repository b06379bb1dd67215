"""People with unique names and six attributes, one of them a function of another (arXiv 2309.14316, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import numpy as np
import polars as pl
from jaxtyping import Int

from jaxconcepts.tasks.biographies_values import (
    FIRST_YEAR,
    MONTHS,
    Cardinalities,
    employer_cities,
    major_ranks,
    values,
)

ATTRIBUTES = ("birth_date", "birth_city", "university", "major", "employer", "employer_city")
DATE_PARTS = ("birth_month", "birth_day", "birth_year")
FORMS = ("english", "compact")
PRONOUNS = ("he", "she")
# A row of the table, by Python's number or NumPy's.
Person = int | np.integer


@dataclass(frozen=True, eq=False)
class People:
    """A world of people.

    table: a row a person, with the columns person (0 ... n - 1), name and its parts first, middle, last, pronoun,
        birth_date and its parts birth_month (1 ... 12), birth_day, birth_year, birth_city, university, major,
        major_rank, employer, employer_city.
    cardinalities, seed: what the table was drawn with; the seed draws the wording of biographies too.
    """

    table: pl.DataFrame
    cardinalities: Cardinalities
    seed: int

    def __len__(self) -> int:
        return len(self.table)

    @cached_property
    def columns(self) -> dict[str, list]:
        """The table as lists: looking up one person in them is fast."""
        return self.table.to_dict(as_series=False)

    def check(self, person: Person, field: str = "person") -> int:
        """The person's number as an int. Raises ValueError where it is no row of the table."""
        if not isinstance(person, Integral) or isinstance(person, bool) or not 0 <= person < len(self):
            raise ValueError(f"{field} must be an integer in 0 ... {len(self) - 1}, got {person!r}")
        return int(person)

    def name(self, person: Person) -> str:
        """The full name: first, middle and last, one space between them."""
        return self.columns["name"][person]

    def value(self, person: Person, field: str, form: str = "english") -> str:
        """An attribute, or a part of the birth date, as it is written in a text.

        English: "October 2, 1996", a month by its name. Compact: one token a value, spaces as underscores; the birth
        date is its parts ("October 2 1996"), without those that are the same for everyone.
        """
        if field == "birth_date" and form == "compact":
            return " ".join(self.value(person, part) for part in self.varying_date_parts)
        value = self.columns[field][person]
        if field == "birth_month":
            return MONTHS[value - 1]
        text = str(value)
        return text.replace(" ", "_") if form == "compact" else text

    @property
    def varying_date_parts(self) -> tuple[str, ...]:
        """The parts of the birth date that can differ between people, in the order in which they are written."""
        sizes = (self.cardinalities.months, self.cardinalities.days, self.cardinalities.years)
        return tuple(part for part, size in zip(DATE_PARTS, sizes, strict=True) if size > 1)

    @cached_property
    def codes(self) -> dict[str, Int[np.ndarray, " people"]]:
        """Field -> 0 ... (values met) - 1, equal where the values are: attributes, parts of the date, major_rank."""
        columns = (*ATTRIBUTES, *DATE_PARTS, "major_rank")
        return {name: np.unique(self.table[name].to_numpy(), return_inverse=True)[1] for name in columns}

    def majority(self, field: str) -> float:
        """The share of people who have the most frequent value of a field: how often a constant answer is right."""
        return float(np.bincount(self.codes[field]).max() / len(self))


def people(count: int | np.integer, seed: int = 0, cardinalities: Cardinalities | None = None) -> People:
    """`count` people with distinct full names; all attributes are uniform and independent.

    The exception is the employer's city, a function of the employer that is the same for every seed.

    Raises ValueError where count is not positive or above the number of names, or the seed is negative.
    """
    cards = Cardinalities() if cardinalities is None else cardinalities
    if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
        raise ValueError(f"biographies.people must be a positive integer, got {count!r}")
    if count > cards.names:
        raise ValueError(
            f"biographies.people must be at most first * middle * last = {cards.first} * {cards.middle} * {cards.last} "
            f"= {cards.names}, so that names are unique; got {count}"
        )
    check_seed(seed)
    rng = np.random.default_rng(seed)
    names = rng.choice(cards.names, size=count, replace=False)
    date = rng.integers(cards.dates, size=count)
    drawn = {name: rng.integers(getattr(cards, name), size=count) for name in ("cities", "universities", "majors")}
    employer = rng.integers(cards.employers, size=count)
    pronoun = rng.integers(len(PRONOUNS), size=count)
    first, middle, last = np.unravel_index(names, (cards.first, cards.middle, cards.last))
    year, month, day = np.unravel_index(date, (cards.years, cards.months, cards.days))
    table = pl.DataFrame(
        {
            "person": np.arange(count),
            "first": _listed("first", first),
            "middle": _listed("middle", middle),
            "last": _listed("last", last),
            "pronoun": np.array(PRONOUNS)[pronoun],
            "birth_month": month + 1,
            "birth_day": day + 1,
            "birth_year": year + FIRST_YEAR,
            "birth_city": _listed("cities", drawn["cities"]),
            "university": _listed("universities", drawn["universities"]),
            "major": _listed("majors", drawn["majors"]),
            "major_rank": major_ranks(cards)[drawn["majors"]],
            "employer": _listed("employers", employer),
            "employer_city": _listed("cities", employer_cities(cards)[employer]),
        }
    )
    dates = [f"{MONTHS[m]} {d}, {y}" for m, d, y in zip(month, day + 1, year + FIRST_YEAR, strict=True)]
    full = pl.concat_str("first", "middle", "last", separator=" ").alias("name")
    table = table.with_columns(full, pl.Series("birth_date", dates)).select(
        "person", "name", pl.exclude("person", "name")
    )
    return People(table, cards, int(seed))


def check_seed(seed: int) -> None:
    """Raises ValueError where the seed is not a natural number."""
    if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}")


def check_form(form: str) -> None:
    """Raises ValueError where the form of a text is not known."""
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")


def _listed(field, indices):
    return np.array(values(field), dtype=object)[indices].tolist()
