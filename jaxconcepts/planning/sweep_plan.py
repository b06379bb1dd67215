"""A plan of a sweep: what it would need on devices that need not be here, from compiling its programs for them.

Every group's real training program is compiled (`packs.make_program`), so memory, FLOPs, collectives and the time
estimate are the compiler's. Nothing is run: a plan is not a measurement, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax

from jaxconcepts.planning import chips
from jaxconcepts.planning.program_cost import Cost, DoesNotFitError, compile_chunk
from jaxconcepts.runs import packs, points
from jaxconcepts.runs.progress import duration
from jaxconcepts.training.experiment import Experiment

FIRST_TRY = 4
"""Runs a chip that are compiled first: on a large slice often all there are."""


class CannotFitError(Exception):
    """A group of which not even one run fits a chip; the message names it."""


@dataclass(frozen=True)
class GroupPlan:
    """One group's plan. runs: of the group. per_chip: how many go at once on a chip (on a row of `data` chips). rows:
    how many such rows are used. cost: of a chip. seconds: a step of that many runs, None where not known. estimate:
    "compiler" or "peak", where the seconds come from."""

    experiment: Experiment
    runs: int
    per_chip: int
    rows: int
    data: int
    cost: Cost
    seconds: float | None
    estimate: str

    @property
    def at_once(self) -> int:
        """Runs that go at once on all chips."""
        return min(self.runs, self.per_chip * self.rows)

    @property
    def hours(self) -> float | None:
        """Of training the whole group, packs one after another; a last pack with fewer runs takes less."""
        if self.seconds is None:
            return None
        full, rest = divmod(self.runs, self.per_chip * self.rows)
        last = math.ceil(rest / self.rows) / self.per_chip
        return (full + last) * self.seconds * self.experiment.train.steps / 3600


def plan_group(group: Sequence[points.Point], layout: packs.Layout, devices: Sequence[jax.Device]) -> GroupPlan:
    """Compiles a group's program for `devices` with as many runs at once as fit, and adds it up.

    Raises CannotFitError where not even one run fits.
    """
    experiment, numbers = group[0].experiment, group[0].numbers
    chip = chips.describe(devices[0])
    rows = packs.make_mesh(len(group), layout.data, devices).shape["runs"]

    def compile_with(per_chip: int) -> Cost | None:
        """The cost with so many runs on each row of chips; None where they do not fit."""
        program = packs.make_program(experiment, min(len(group), per_chip * rows), layout, devices)
        try:
            cost = compile_chunk(program, experiment, numbers)
        except DoesNotFitError:
            return None
        return cost if chip.memory is None or cost.memory <= chip.memory else None

    per_chip, cost = largest_fitting(compile_with, math.ceil(len(group) / rows), chip.memory)
    if cost is None:
        raise CannotFitError(
            f"{experiment.describe()}: not even one run fits a {chip.name}"
            + (f" with {_bytes(chip.memory)}" if chip.memory else "")
            + "; make train.batch_size smaller, set model.remat=True or run.data to more chips"
        )
    if cost.cycles is not None and chip.clock:
        seconds, estimate = cost.cycles / chip.clock, "compiler"
    else:
        seconds, estimate = (cost.flops / chip.peak if chip.peak else None), "peak"
    return GroupPlan(experiment, len(group), per_chip, rows, layout.data, cost, seconds, estimate)


def largest_fitting(
    compile_with: Callable[[int], Cost | None], wanted: int, limit: int | None
) -> tuple[int, Cost | None]:
    """The largest number of runs a chip, at most `wanted`, that fits, and its cost; (0, None) where not even one does.

    compile_with(n) gives the cost of n runs, None where they do not fit. It is called few times (once to four times,
    rarely more), because compiling takes long: memory grows in a straight line with the runs, which is how the next
    number is found, so the answer can be a few percent below the largest that would fit.
    """
    fitting = min(wanted, FIRST_TRY) if limit is not None else wanted
    cost = compile_with(fitting)
    while cost is None and fitting > 1:
        fitting, wanted = fitting // 2, fitting - 1
        cost = compile_with(fitting)
    if cost is None:
        return 0, None
    per_run, line_known = cost.memory / fitting, False
    while fitting < wanted:
        guess = int(fitting + (limit - cost.memory) / per_run)
        if not line_known:
            # A line through the origin takes what the program needs once for what every run needs.
            guess = max(guess, 2 * fitting)
        guess = min(guess, wanted)
        if guess < wanted and guess <= 1.05 * fitting:
            break
        larger = compile_with(guess)
        if larger is None:
            wanted, per_run, line_known = guess - 1, 1.1 * per_run, True
        else:
            per_run, line_known = max(1, (larger.memory - cost.memory) / (guess - fitting)), True
            fitting, cost = guess, larger
    return fitting, cost


def plan(
    groups: Sequence[Sequence[points.Point]],
    layout: packs.Layout,
    devices: Sequence[jax.Device],
    show: Callable[[str], None] = print,
    each_group: bool = False,
) -> list[GroupPlan]:
    """Plans every group and shows each as it is ready, then the sum.

    each_group: compile every group. Otherwise groups of as many runs that differ in the task's concepts alone (their
        number, rank and overlap, which only the drawing of data depends on) share one compilation, and are shown so.

    Raises CannotFitError after the others are planned where groups do not fit, naming each.
    """
    chip = chips.describe(devices[0])
    count, memory = len(devices), f", {_bytes(chip.memory)} of memory each" if chip.memory else ""
    show("This is a plan, not a measurement: the programs were compiled for these devices and not run.")
    show(f"{sum(map(len, groups))} run(s) in {len(groups)} group(s) on {count} x {chip.name}{memory}")
    plans, refused, compiled = [], [], {}
    for number, group in enumerate(groups, 1):
        show(f"\ngroup {number} of {len(groups)}: {group[0].experiment.describe()}, {len(group)} run(s)")
        alike = len(group), group[0].experiment.program_key()
        if not each_group and alike in compiled:
            first, planned = compiled[alike]
            plans.append(replace(planned, experiment=group[0].experiment))
            show(f"  as group {first}, which differs in the task's concepts alone (not compiled again)")
            continue
        try:
            plans.append(plan_group(group, layout, devices))
            compiled[alike] = (number, plans[-1])
            show(describe_plan(plans[-1], chip))
        except CannotFitError as error:
            refused.append(f"group {number}, {error}")
            show("  does not fit")
    show("\n" + _sum(plans, count, chip))
    if refused:
        raise CannotFitError("; ".join(refused))
    return plans


def describe_plan(plan: GroupPlan, chip: chips.Chip) -> str:
    """A group's plan in lines."""
    cost, of_memory = plan.cost, ""
    if chip.memory:
        of_memory = f" ({100 * cost.memory / chip.memory:.0f} % of {_bytes(chip.memory)})"
    collectives = ", ".join(f"{count} {kind}" for kind, count in cost.collectives.items()) or "none"
    lines = [
        f"runs at once     {plan.at_once} = up to {plan.per_chip} on each of {plan.rows} "
        + ("chip(s)" if plan.data == 1 else f"group(s) of {plan.data} chips"),
        f"memory per chip  {_bytes(cost.memory)}{of_memory}: arguments {_bytes(cost.arguments)}, outputs "
        f"{_bytes(cost.outputs)} beside them, temporaries {_bytes(cost.temporaries)}, code {_bytes(cost.code)}, "
        f"held-out sequences {_bytes(cost.held_out)}",
        f"FLOPs            {cost.flops:.3g} a step and chip, in matrix products",
        f"time             {_time(plan, chip)}",
        f"collectives      {collectives}",
    ]
    if plan.hours is not None:
        chips_used = plan.rows * plan.data
        lines.append(f"in all           {_hours(plan.hours)}, {plan.hours * chips_used:.3g} chip-hours")
    return "\n".join("  " + line for line in lines)


def _time(plan, chip):
    if plan.seconds is None:
        return f"unknown: neither an estimate by the compiler nor a documented peak rate for {chip.name}"
    source = (
        f"the compiler's cycles at {chip.clock / 1e9:.2f} GHz"
        if plan.estimate == "compiler"
        else "no estimate by the compiler: FLOPs over the documented bfloat16 peak, which no program reaches"
    )
    share = f"; {100 * plan.cost.flops / plan.seconds / chip.peak:.0f} % of the bfloat16 peak" if chip.peak else ""
    return f"{plan.seconds * 1e3:.3g} ms a step of {plan.at_once} run(s) ({source}{share})"


def _sum(plans, count, chip):
    hours = [plan.hours for plan in plans]
    if not plans or None in hours:
        return f"The sweep's time on {chip.name} is not known."
    used = sum(plan.hours * plan.rows * plan.data for plan in plans)
    return (
        f"The sweep: about {_hours(sum(hours))} on {count} x {chip.name}, {used:.3g} chip-hours of training. Not in "
        "it: compiling, measurements between steps, writing, and whatever keeps a chip below the compiler's estimate."
    )


def _hours(hours: float) -> str:
    return f"{hours:.3g} h" if hours >= 1 else duration(hours * 3600)


def _bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 2**10:.3g} KiB"
