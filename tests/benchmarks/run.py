"""Runs the benchmarks and prints one table; called by launch/bench.sh.

Each bench_*.py beside this file has `rows(quick) -> list[dict]` with the columns below; peers run in the same process,
on the same machine, one after the other. Results are ratios: peer's seconds over ours, above 1 where ours is faster.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import re
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
COLUMNS = ("benchmark", "shape", "ours_s", "peer", "peer_s", "ratio", "aim")
PACKAGES = ("jax", "jaxlib", "numpy", "scikit-learn", "faiss-cpu", "torch", "transformers", "nnsight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, to see that everything runs")
    parser.add_argument("--only", nargs="*", help="names of benchmarks, e.g. decodability training")
    parser.add_argument("--cpu-devices", type=int, default=2, help="host devices to make of a CPU")
    options = parser.parse_args()

    import jax

    jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    device = f"{jax.devices()[0].device_kind} x {jax.device_count()}, {platform.machine()}"
    rows = []
    for path in sorted(HERE.glob("bench_*.py")):
        if options.only and path.stem.removeprefix("bench_") not in options.only:
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rows += module.rows(options.quick)
    print_table(rows)
    host = describe_host()
    # In each row too: rows of other machines may stand beside these, by --only.
    rows = [row | {"device": device, "cpu": host["cpu"], "jax": jax.__version__} for row in rows]
    result = {"device": device} | host | {"rows": rows}
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    target = folder / file_name(jax.devices()[0].device_kind, options.quick)
    if target.exists() and options.only:
        kept = {row["benchmark"]: row for row in rows}
        old = [row for row in json.loads(target.read_text())["rows"] if row["benchmark"] not in kept]
        result["rows"] = old + rows
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{device}; {result['cpu']}; " + ", ".join(f"{k} {v}" for k, v in host["versions"].items()))
    print(f"written to {target}")


def print_table(rows: list[dict], columns: Sequence[str] = COLUMNS) -> None:
    """Prints the rows as a Markdown table."""
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        print("| " + " | ".join(f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells) + " |")


def file_name(device_kind: str, quick: bool) -> str:
    """Of a device's table."""
    name = re.sub(r"\W+", "-", device_kind.lower()).strip("-")
    return f"{name}{'-quick' if quick else ''}.json"


def describe_host() -> dict:
    """The processor, and the versions of Python and of PACKAGES."""
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return {"cpu": _cpu_name(), "python": platform.python_version(), "versions": versions}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    found = re.search(r"model name\s*:\s*(.+)", info.read_text())
    return found.group(1) if found else platform.processor()


if __name__ == "__main__":
    main()
