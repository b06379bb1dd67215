"""Adaptive search: what a config's `get_search()` returns, and the points that Optuna proposes for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxconcepts.quantity import Quantity
from jaxconcepts.sweeps.space import Choice, Range

GOALS = ("minimize", "maximize")


@dataclass(frozen=True, kw_only=True)
class Search:
    """An adaptive search over fields.

    fields: the range of each field, by dotted name: `uniform`, `log_uniform`, `integers` or `choice`.
    quantity: what is optimised, as the mean over a point's seeds. goal: "minimize" or "maximize".
    points: the number of points in all. round: the number of points that are proposed at a time and trained together.
    drawn: the number of first points that are random. seed: the seed of the proposals.

    Raises ValueError, naming the field, for a value of another kind.
    """

    fields: Mapping[str, Range | Choice]
    quantity: Quantity
    goal: str = "minimize"
    points: int = 32
    round: int = 8
    drawn: int = 10
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.fields, Mapping) or not self.fields:
            raise ValueError(f"search.fields must be a dict of ranges by dotted field, got {self.fields!r}")
        for name, values in self.fields.items():
            if not isinstance(values, Range | Choice):
                raise ValueError(
                    f"search.fields: {name} must be uniform(...), log_uniform(...), integers(...) or choice(...), "
                    f"got {values!r}"
                )
        if "seed" in self.fields:
            raise ValueError("search.fields must not hold seed: num_seeds says how many seeds a point has")
        if not isinstance(self.quantity, Quantity):
            raise ValueError(f"search.quantity must be a Quantity, got {self.quantity!r}")
        if self.goal not in GOALS:
            raise ValueError(f"search.goal must be one of {', '.join(GOALS)}, got {self.goal!r}")
        for name, least in (("points", 1), ("round", 1), ("drawn", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"search.{name} must be an integer of at least {least}, got {value!r}")

    def corners(self) -> list[dict[str, Any]]:
        """Each field at each of its bounds or choices, the others at their first: what can be checked ahead."""
        first = {name: values.ends[0] for name, values in self.fields.items()}
        return [first | {name: end} for name, values in self.fields.items() for end in values.ends]

    def check(self, proposal: Mapping[str, Any]) -> None:
        """Raises ValueError for an override that this search could not have proposed."""
        if proposal.keys() != self.fields.keys():
            raise ValueError(f"its fields are {', '.join(proposal)}")
        for name, value in proposal.items():
            _place(name, self.fields[name], value)


def propose(
    search: Search, asked: Sequence[Mapping[str, Any]], values: Sequence[float], count: int
) -> list[dict[str, Any]]:
    """`count` overrides by dotted field, by the tree-structured Parzen estimator (Bergstra et al. 2011).

    asked, values: the proposals of before and what they gave. NaN, such as of a run that diverged, is worse than any
    number. Optuna's study is made anew from them and its sampler seeded by their number, so that the same proposals
    follow whether or not a search was stopped in between.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = {name: _distribution(values) for name, values in search.fields.items()}
    seed = int(np.random.SeedSequence([search.seed, len(asked)]).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.drawn)
    study = optuna.create_study(sampler=sampler, direction=search.goal)
    for proposal, value in zip(asked, values, strict=True):
        outcome = {"value": value} if math.isfinite(value) else {"state": optuna.trial.TrialState.PRUNED}
        params = {name: _place(name, search.fields[name], proposal[name]) for name in kinds}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, **outcome))
    trials = [study.ask(kinds).params for _ in range(count)]
    return [{name: _value(of, trial[name]) for name, of in search.fields.items()} for trial in trials]


def _distribution(values: Range | Choice):
    from optuna import distributions

    if isinstance(values, Choice):
        # By place: a value may be a list, which Optuna does not take.
        return distributions.CategoricalDistribution(range(len(values.values)))
    kind = distributions.IntDistribution if values.whole else distributions.FloatDistribution
    return kind(values.low, values.high, log=values.log)


def _value(values: Range | Choice, place: Any) -> Any:
    return values.values[place] if isinstance(values, Choice) else place


def _place(name: str, values: Range | Choice, value: Any) -> Any:
    """The value as Optuna has it. Raises ValueError for one that is not in the range."""
    if isinstance(values, Choice):
        choices = [json.dumps(choice) for choice in values.values]
        if json.dumps(value) not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
        return choices.index(json.dumps(value))
    if not values.low <= value <= values.high:
        raise ValueError(f"{name} must be from {values.low} to {values.high}, got {value!r}")
    return value
