"""Runs the benchmarks of two revisions in turn and prints how their times compare; see launch/bench.sh.

Each pair is one run of either revision, in an order that alternates, so that a machine which slows down or warms up
does so for both. A ratio is the other revision's seconds over ours in one pair: above 1 this tree is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path("tests") / "benchmarks" / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="what to compare this tree with, e.g. HEAD~1 or a tag")
    parser.add_argument("--pairs", type=int, default=3, help="how often each revision is measured")
    parser.add_argument("--only", nargs="*", default=[], help="names of benchmarks, e.g. decodability training")
    parser.add_argument("--full", action="store_true", help="at the sizes of launch/bench.sh, not the quick ones")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error(f"--pairs must be at least 1, got {options.pairs}")
    asked = ["git", "rev-parse", "--verify", "-q", f"{options.revision}^{{commit}}"]
    known = subprocess.run(asked, cwd=ROOT, text=True, capture_output=True, check=False)
    if known.returncode:
        parser.error(f"revision must be a commit of this repository, got {options.revision!r}")
    pairs = []
    with trees(known.stdout.strip()) as (here, there):
        for number in range(options.pairs):
            order = (here, there) if number % 2 == 0 else (there, here)
            times = {}
            for tree in order:
                name = "this tree" if tree == here else options.revision
                print(f"pair {number + 1} of {options.pairs}: {name}", flush=True)
                times[tree] = measure(tree, options.only, options.full)
            pairs.append((times[here], times[there]))
            # After each, so that a comparison that is stopped has shown what it knew.
            print_ratios(ratios(pairs), options.revision)
    return 0


@contextlib.contextmanager
def trees(commit: str) -> Iterator[tuple[Path, Path]]:
    """A copy of this tree, with what is not committed, and a checkout of a commit; both go at the end."""
    with tempfile.TemporaryDirectory(prefix="compare") as folder:
        here, there = Path(folder) / "here", Path(folder) / "there"
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                                capture_output=True, text=True, check=True)  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (here / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, here / name)
        there.mkdir()
        packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(there)], input=packed.stdout, check=True)
        yield here, there


def measure(tree: Path, only: Sequence[str], full: bool = False) -> dict[str, float]:
    """Our seconds by benchmark and shape, of one run of a tree's benchmarks: the quick ones, or those of full size."""
    shutil.rmtree(tree / RESULTS, ignore_errors=True)
    command = [sys.executable, "tests/benchmarks/run.py", *([] if full else ["--quick"])]
    command += ["--only", *only] if only else []
    # Each compiles for itself: what the one has kept must not be the other's.
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the benchmarks of {tree.name} failed:\n{done.stdout}{done.stderr}")
    (path,) = (tree / RESULTS).glob("*.json")
    return {f"{row['benchmark']}, {row['shape']}": row["ours_s"] for row in json.loads(path.read_text())["rows"]}


def ratios(pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, list[float]]:
    """By benchmark, the ratios of all pairs of (this tree's, the other's) seconds; those that only one has are left
    out."""
    common = [name for name in pairs[0][0] if all(name in times for pair in pairs for times in pair)]
    return {name: [there[name] / here[name] for here, there in pairs] for name in common}


def print_ratios(table: Mapping[str, Sequence[float]], revision: str) -> None:
    """Prints the median and the least and largest ratio of each benchmark."""
    print(f"\n{revision}'s seconds over this tree's: above 1 this tree is faster.\n")
    print("| benchmark | median | least | largest |\n|---|---|---|---|")
    for name, values in table.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    sys.exit(main())
