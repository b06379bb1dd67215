"""Claims: a statement of a paper as data, and its verdict computed from a sweep's tables.

A claim says which quantity of which arms is compared, what is expected, and what was published. Arms are paired by
seed. The verdict follows from the mean difference and its 95 % interval alone: "holds" where the whole interval is on
the expected side, "contradicted" where it is wholly on the other, else "not shown at this size", which is not "false".
A run directory keeps its claims in claims.json, so the report needs no config file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from etils import epath

from jaxconcepts.intervals import mean_interval
from jaxconcepts.quantity import Quantity, by_run, matches
from jaxconcepts.store import files

FILE = "claims.json"
EXPECTED = ("more", "less", "within")
HOLDS, NOT_SHOWN, CONTRADICTED = "holds", "not shown at this size", "contradicted"
UNDECIDED = "not decided"
FEWEST_SEEDS = 5
"""Fewer paired seeds than this are named beside the verdict: 5 of 5 alike has a one-sided p of .031."""


@dataclass(frozen=True)
class Arm:
    """The runs of one arm. where: fields of the runs table, by dotted name, and the value, or list of values, of its
    runs. published: what the paper reports of it, None where it does not."""

    name: str
    where: Mapping[str, Any] = field(default_factory=dict)
    published: float | None = None


@dataclass(frozen=True)
class Claim:
    """A statement and how the tables decide it.

    arms: the treated arm and the one it is compared with; or one arm, compared with `reference`. The quantity of the
    second arm may be another one (`against`).
    expected: "more", "less": the difference is above `bound`, below -`bound`; "within": it is between -bound and bound.
    unit: of the quantity, for the figure's axis. source: where the statement was published. hazards: what would make
    the verdict misleading.

    Raises ValueError, naming the field, for other numbers of arms, an unknown expectation and a bound that it cannot
    have.
    """

    name: str
    statement: str
    quantity: Quantity
    arms: tuple[Arm, ...]
    expected: str = "more"
    bound: float = 0.0
    reference: float = 0.0
    against: Quantity | None = None
    unit: str = ""
    source: str = ""
    hazards: str = ""

    def __post_init__(self):
        if self.expected not in EXPECTED:
            raise ValueError(f"claim {self.name}: expected must be one of {', '.join(EXPECTED)}, got {self.expected!r}")
        if len(self.arms) not in (1, 2):
            raise ValueError(f"claim {self.name}: arms must be one or two, got {len(self.arms)}")
        if not math.isfinite(self.bound) or self.bound < 0 or (self.expected == "within" and self.bound == 0):
            raise ValueError(
                f"claim {self.name}: bound must be a number of at least 0 (above 0 for within), got {self.bound!r}"
            )

    @property
    def expectation(self) -> str:
        """What is expected of the difference, in words."""
        bound = f"{self.bound:g}"
        return {"more": f"above {bound}", "less": f"below -{bound}" if self.bound else "below 0"}.get(
            self.expected, f"within ± {bound}"
        )


class Verdict(NamedTuple):
    """What the tables say of a claim.

    seeds: those with a value in every arm, ascending. values: [arms, seeds] (NaN where a run diverged). differences:
    [seeds]. mean, low, high: of the finite differences, with the 95 % t interval. alike: how many have the expected
    sign (within: lie within the bound). diverged: names of runs that did. answer: one of the three verdicts, or
    UNDECIDED. reason: why nothing could be decided, or "".
    """

    seeds: tuple[int, ...]
    values: np.ndarray
    differences: np.ndarray
    mean: float
    low: float
    high: float
    alike: int
    diverged: tuple[str, ...]
    answer: str
    reason: str


def decide(claim: Claim, metrics: pl.DataFrame, runs: pl.DataFrame) -> Verdict:
    """The verdict of a claim on a run directory's tables. metrics, runs: as `jaxconcepts.store` reads them."""
    by_arm, diverged = [], []
    quantities = (claim.quantity, claim.against or claim.quantity)
    for arm, quantity in zip(claim.arms, quantities, strict=False):
        of_arm, reason = _runs_of(arm, runs)
        if reason:
            return _undecided(claim, reason)
        diverged += of_arm.filter(pl.col("status") == "diverged")["run"].to_list()
        by_arm.append(_by_seed(quantity, of_arm, metrics))
    shared = sorted(set.intersection(*(set(values) for values in by_arm)))
    values = np.array([[values[seed] for seed in shared] for values in by_arm]).reshape(len(by_arm), len(shared))
    differences = values[0] - (values[1] if len(values) > 1 else claim.reference)
    finite = differences[np.isfinite(differences)]
    if finite.size < 2:
        wanted = f"the metric {claim.quantity.metric}" if not finite.size else "two seeds"
        return _undecided(claim, f"{wanted} in every arm is needed; {finite.size} seed(s) have it", tuple(diverged))
    mean, (low, high) = finite.mean(), mean_interval(finite)
    signs = {"more": finite > claim.bound, "less": finite < -claim.bound, "within": np.abs(finite) < claim.bound}
    return Verdict(
        tuple(shared), values, differences, float(mean), low, high, int(signs[claim.expected].sum()), tuple(diverged),
        _answer(claim, low, high), "",
    )  # fmt: skip


def _answer(claim: Claim, low: float, high: float) -> str:
    if claim.expected == "within":
        if -claim.bound < low and high < claim.bound:
            return HOLDS
        return CONTRADICTED if low > claim.bound or high < -claim.bound else NOT_SHOWN
    sign = 1 if claim.expected == "more" else -1
    least, most = sorted((sign * low, sign * high))
    # The bound is part of the statement; only a difference on the other side of zero speaks against it.
    return HOLDS if least > claim.bound else CONTRADICTED if most < 0 else NOT_SHOWN


def _undecided(claim, reason, diverged=()) -> Verdict:
    nothing = np.full((len(claim.arms), 0), math.nan)
    return Verdict((), nothing, nothing[0], math.nan, math.nan, math.nan, 0, diverged, UNDECIDED, reason)


def _runs_of(arm: Arm, runs: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The arm's rows of the runs table, without runs that still go on, and why there are none."""
    if unknown := [name for name in arm.where if name not in runs.columns]:
        return runs.clear(), f"arm {arm.name}: the runs have no field {unknown[0]}"
    of_arm = runs.filter(*(matches(name, value) for name, value in arm.where.items()))
    ended = of_arm.filter(pl.col("status") != "running")
    if ended.height:
        return ended, ""
    return ended, f"arm {arm.name}: {'no run has ended' if of_arm.height else f'no run has {dict(arm.where)}'}"


def _by_seed(quantity: Quantity, of_arm: pl.DataFrame, metrics: pl.DataFrame) -> dict[int, float]:
    """The quantity by seed, the mean over an arm's runs of one seed; NaN where one of them diverged."""
    of_run = by_run(quantity, metrics).join(of_arm.select("run", "seed", "status"), on="run")
    # What was measured since is the model's as it was frozen then.
    value = pl.when(pl.col("status").ne_missing("diverged")).then("value").otherwise(math.nan)
    return dict(of_run.group_by("seed").agg(value.mean().alias("value")).iter_rows())


def write(workdir: epath.PathLike, claims: Sequence[Claim]) -> None:
    """Keeps the claims in a run directory, over those of before."""
    text = json.dumps([asdict(claim) for claim in claims], indent=1, ensure_ascii=False)
    files.write(epath.Path(workdir).expanduser() / FILE, text.encode())


def read(workdir: epath.PathLike) -> list[Claim]:
    """The claims of a run directory; none where it has no claims.json. Raises ValueError naming a damaged file."""
    path = epath.Path(workdir).expanduser() / FILE
    if not path.exists():
        return []
    with files.naming(path, "; delete it, and sweep again to have it written"):
        return [_from_json(content) for content in json.loads(path.read_text())]


def _from_json(content: Mapping[str, Any]) -> Claim:
    against = content["against"]
    parts = {
        "quantity": Quantity(**content["quantity"]),
        "against": None if against is None else Quantity(**against),
        "arms": tuple(Arm(**arm) for arm in content["arms"]),
    }
    return Claim(**{**content, **parts})
