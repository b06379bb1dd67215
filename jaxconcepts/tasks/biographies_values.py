"""The made-up values that people are drawn from: names, cities, universities, majors and employers.

Each list is combined from parts, so that it has as many entries as arXiv 2309.14316 uses (sizes in `Cardinalities`),
and a shorter list is the start of a longer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from jaxtyping import Int

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
FIRST_YEAR = 1900
# Draws what is fixed for every world: which employers sit in the first city, and the ranks of the majors.
FIXED_SEED = 2309
# The employers of the city that has most, of all employers.
LARGEST_CITY_SHARE = 36 / 263

_FIRST = (
    "Al Bre Cas Del Eri Fen Gal Har Isa Jor Kel Lin Mar Nor Ode Per Quin Ros Sel Tam",
    "bel dan dor gar ko la lyn min mond nis phie ria rick ssa tha ton ven via wyn zel",
)
_MIDDLE = (
    "Ash Bri Cor Dar El Flo Gwen Hol Iv Jas Kir Lu Mel Nev Or Pai Ren Sky Tor Wil",
    "by cia den eth fra gan hart ina jay kin low mer nor pin ra sten tis urd vane yx",
)
_LAST = (
    "Ack Ald Bal Bram Cald Carr Cran Dun Eld Fair Farn Glen Gran Hal Hart Hath Hol Kest Lang Lock "
    "Marl Mill Nor Oak Pem Quar Rad Rams Red Rock Sand Shel Stan Tarn Thorn Under Vand Wake Wes Win",
    "bury by combe cott dale den er field ford gate ham holt hurst ington land ley low more ridge shaw "
    "stead stone ton ward worth",
)
_CITIES = (
    "Amber Brook Clear Dove East Fox Grey High Iron Juniper King Lake Maple North Ox Pine Quartz River Silver Timber",
    "bridge burg crest fall haven mouth point port vale view",
)
_CAMPUSES = ("Ar Bel Cam Dor El Fal Gor Hel Im Jar", "bourne dell ford garth lan mere nock rath sett wick")
_UNIVERSITY_FORMS = ("University of {}", "{} College", "{} Institute of Technology")
_MAJORS = (
    "Applied Comparative Computational Environmental Experimental Historical Industrial Medical Social Theoretical",
    "Biology Chemistry Economics Geography Geology Linguistics Mathematics Physics Psychology Statistics",
)
_FIRMS = (
    "Ab Bor Cy Dex Ev Fin Gly Hy In Jo Kal Lum Mox Nex Om Pra Qua Rho Syn Tri Ul Vel Wex Zan",
    "core dyne flex gen lane mar nova rix sol tek vox",
)
_TRADES = (
    *("Airlines", "Bank", "Builders", "Chemicals", "Energy", "Foods"),
    *("Insurance", "Logistics", "Media", "Motors", "Software", "Textiles"),
)


@dataclass(frozen=True)
class Cardinalities:
    """How many values each part of a person may take; the defaults are those of arXiv 2309.14316.

    first, middle, last: parts of the name. years (from 1900), months, days: parts of the birth date. cities: of birth,
    and those that employers are in. universities, majors, employers. The city of an employer is a function of it.

    Raises ValueError where a field is not an integer between 1 (2 for all but the parts of names and dates) and the
    number of values that there are, or where there is only one birth date.
    """

    first: int = 400
    middle: int = 400
    last: int = 1000
    years: int = 200
    months: int = 12
    days: int = 28
    cities: int = 200
    universities: int = 300
    majors: int = 100
    employers: int = 263

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            least = 2 if field.name in ("cities", "universities", "majors", "employers") else 1
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= field.default:
                accepted = f"an integer in {least} ... {field.default}"
                raise ValueError(f"cardinalities.{field.name} must be {accepted}, got {value!r}")
        if self.dates < 2:
            raise ValueError(
                "cardinalities.years, .months and .days are all 1, got one birth date; at least 2 accepted"
            )

    @property
    def names(self) -> int:
        """How many full names there are."""
        return self.first * self.middle * self.last

    @property
    def dates(self) -> int:
        """How many birth dates there are."""
        return self.years * self.months * self.days


@lru_cache
def values(field: str) -> tuple[str, ...]:
    """All values of a list: "first", "middle", "last", "cities", "universities", "majors" or "employers"."""
    if field == "universities":
        stems = _combined(*_CAMPUSES)
        forms = len(_UNIVERSITY_FORMS)
        return tuple(
            _UNIVERSITY_FORMS[(i // len(stems) + i) % forms].format(stems[i % len(stems)])
            for i in range(forms * len(stems))
        )
    if field == "employers":
        stems = _combined(*_FIRMS)[:263]
        return tuple(f"{stem} {_TRADES[7 * i % len(_TRADES)]}" for i, stem in enumerate(stems))
    if field == "majors":
        return _combined(*_MAJORS, between=" ")
    return _combined(*{"first": _FIRST, "middle": _MIDDLE, "last": _LAST, "cities": _CITIES}[field])


def _combined(starts: str, ends: str, between: str = "") -> tuple[str, ...]:
    """Every start with every end, along diagonals, so that a short list already varies both."""
    a, b = starts.split(), ends.split()
    return tuple(a[i % len(a)] + between + b[(i // len(a) + i) % len(b)] for i in range(len(a) * len(b)))


def employer_cities(cardinalities: Cardinalities) -> Int[np.ndarray, " employers"]:
    """The city of each employer. 36 of 263 are in city 0; the others are spread evenly over the other cities."""
    count = cardinalities.employers
    largest = max(1, round(LARGEST_CITY_SHARE * count))
    rng = np.random.default_rng(FIXED_SEED)
    cities = np.zeros(count, np.int64)
    others = rng.permutation(np.arange(1, cardinalities.cities))
    cities[rng.permutation(count)[largest:]] = np.resize(others, count - largest)
    return cities


def largest_city_share(cardinalities: Cardinalities) -> float:
    """The share of employers in the city that has most: how often the best constant answer is right (0.137)."""
    return float(np.bincount(employer_cities(cardinalities)).max() / cardinalities.employers)


def major_ranks(cardinalities: Cardinalities) -> Int[np.ndarray, " majors"]:
    """The rank of each major, a fixed order that has nothing to do with the words of its name."""
    return np.random.default_rng(FIXED_SEED + 1).permutation(cardinalities.majors)


def value_bits(cardinalities: Cardinalities) -> float:
    """log2 S0: the bits of one person's attributes and pronoun, 47.6 by default. The employer's city adds none."""
    c = cardinalities
    return math.log2(2 * c.dates * c.cities * c.universities * c.majors * c.employers)
