#!/usr/bin/env bash
# Measures against peers, side by side on this machine: bash launch/bench.sh [--quick] [--only NAME ...]
# Prints one table and writes tests/benchmarks/results/<device>.json.
# bash launch/bench.sh --compare REV [--pairs N] [--full] [--only NAME ...]: the quick benchmarks (with --full those of
# full size) of this tree and of REV in turn.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "bench"
if [ "${1:-}" = --compare ]; then
  shift
  python tests/benchmarks/compare.py "$@"
else
  python tests/benchmarks/run.py "$@"
fi
