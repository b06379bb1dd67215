"""Problems a second on one core, written and checked, beside 100 a second.

    python tests/benchmarks/bench_reasoning.py [--quick]

Ours: a problem from its seed, graph, text and solution. "100 a second": what a bank needs (180 000 problems in half an
hour); `ratio` is how many times as many are made. The rows "checked" read as many solutions.
"""

from __future__ import annotations

import json
import sys
import time

from jaxconcepts.tasks import reasoning_check
from jaxconcepts.tasks.reasoning import ReasoningConfig, generate

AIM_SECONDS = 0.01
SIZES = {
    "small": {"modulus": 7, "max_instances": 8, "operations": (1, 6)},
    "hardest of medium": {"modulus": 23, "max_instances": 20, "operations": (23, 23)},
}


def rows(quick: bool = False) -> list[dict]:
    """A row a form and size: seconds a problem, and how many times faster than 100 a second."""
    count = 100 if quick else 2000
    return [
        row
        for form in ("compact", "english")
        for size, fields in SIZES.items()
        for row in _measure(ReasoningConfig(form=form, **fields), f"{form}, {size}", count)
    ]


def _measure(config: ReasoningConfig, shape: str, count: int) -> list[dict]:
    # The check of the config's reach, once a process, is no part of a problem's time.
    generate(config, 0)
    start = time.perf_counter()
    problems = [generate(config, seed) for seed in range(count)]
    made = time.perf_counter()
    correct = [reasoning_check.check(problem, problem.solution).correct for problem in problems]
    checked = time.perf_counter()
    assert all(correct)
    return [
        _row("problems made", shape, (made - start) / count),
        _row("problems checked", shape, (checked - made) / count),
    ]


def _row(benchmark: str, shape: str, seconds: float) -> dict:
    numbers = {"ours_s": seconds, "peer": "100 a second", "peer_s": AIM_SECONDS, "ratio": AIM_SECONDS / seconds}
    return {"benchmark": benchmark, "shape": shape} | numbers | {"aim": 1}


if __name__ == "__main__":
    for line in rows("--quick" in sys.argv):
        print(json.dumps(line))
