"""How many bits about people a model has stored, and how many there are (arXiv 2404.05405, definition 4.1)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxconcepts.tasks.biographies_encoding import NAME_TOKEN, VALUE_TOKEN
from jaxconcepts.tasks.biographies_values import Cardinalities, value_bits


class PersonBits(NamedTuple):
    """Bits that one person holds: in the name, and in the pronoun and the attributes."""

    name: float
    values: float

    @property
    def total(self) -> float:
        return self.name + self.values


def bits_a_person(people: int, cardinalities: Cardinalities | None = None) -> PersonBits:
    """What a perfect model knows of one of `people` persons: log2(N0 / N) of the name and log2 S0 of the values.

    N0 is the number of names there are and S0 that of combinations of values. The name gives log2(N0 / N) because a
    person is any of N, in no order. By default, at N = 100 000: 10.64 + 47.59 = 58.24 bits.

    Raises ValueError where people is not between 1 and N0.
    """
    cards = Cardinalities() if cardinalities is None else cardinalities
    _check_people(people, cards)
    return PersonBits(math.log2(cards.names / people), value_bits(cards))


def stored_bits(people: int, name_loss: float, value_loss: float, cardinalities: Cardinalities | None = None) -> float:
    """Bits stored in all: N log2(N0 / e^p1) + N log2(S0 / e^p2), each term at least 0.

    name_loss: p1, nats a person: cross-entropies summed over the tokens of the name, mean over people; log N at best.
    value_loss: p2, nats a person, summed over the first mention of the pronoun and the tokens of all values.

    A model worse than a uniform guess stores nothing, and none stores more than there is: `people` times
    `bits_a_person`. Raises ValueError for a negative or non-finite loss.
    """
    cards = Cardinalities() if cardinalities is None else cardinalities
    most = bits_a_person(people, cards)
    for field, loss in (("name_loss", name_loss), ("value_loss", value_loss)):
        if not (math.isfinite(loss) and loss >= 0):
            raise ValueError(f"{field} must be a finite number of nats of at least 0, got {loss!r}")
    name = math.log2(cards.names) - name_loss / math.log(2)
    values = most.values - value_loss / math.log(2)
    return people * (min(max(name, 0.0), most.name) + max(values, 0.0))


def losses_a_person(token_losses: Float[np.ndarray, "P T"], parts: Int[np.ndarray, "P T"]) -> tuple[float, float]:
    """The two losses that `stored_bits` takes, (name, values), of biographies that begin with the name.

    token_losses: nats, at the place of the token that is predicted. parts: `biographies_items.Items.parts`. Each is the
    sum over a biography's tokens of that part, and the mean over biographies.

    Raises ValueError for other shapes, or where a biography has no token of the name or of a value.
    """
    if token_losses.shape != parts.shape:
        raise ValueError(f"token_losses must have the shape of parts, {parts.shape}; got {token_losses.shape}")
    sums = []
    for part in (NAME_TOKEN, VALUE_TOKEN):
        counted = parts == part
        if not counted.any(axis=1).all():
            raise ValueError(
                f"parts must hold a token of the name and of a value in every row; {part} is missing in one"
            )
        sums.append(float(np.where(counted, token_losses, 0).sum(axis=1, dtype=np.float64).mean()))
    return sums[0], sums[1]


def bits_a_parameter(
    people: int,
    name_loss: float,
    value_loss: float,
    parameters: int,
    cardinalities: Cardinalities | None = None,
) -> float:
    """`stored_bits` over the number of trained parameters. Raises ValueError where that is not positive."""
    return stored_bits(people, name_loss, value_loss, cardinalities) / _positive(parameters)


def ceiling(people: int, parameters: int, cardinalities: Cardinalities | None = None) -> float:
    """The bits a parameter that a model with all facts and no more would have."""
    return people * bits_a_person(people, cardinalities).total / _positive(parameters)


def _check_people(people, cards):
    if not isinstance(people, int) or isinstance(people, bool) or not 1 <= people <= cards.names:
        raise ValueError(f"people must be an integer in 1 ... {cards.names} (the names), got {people!r}")


def _positive(parameters):
    if not isinstance(parameters, int) or isinstance(parameters, bool) or parameters < 1:
        raise ValueError(f"parameters must be a positive integer, got {parameters!r}")
    return parameters
