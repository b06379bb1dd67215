#!/usr/bin/env bash
# Measures against peers, side by side on this machine: bash launch/bench.sh [--quick] [--only NAME ...]
# Prints one table and writes tests/benchmarks/results/<device>.json.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "bench"
python tests/benchmarks/run.py "$@"
