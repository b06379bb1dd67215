#!/usr/bin/env bash
# The GPU battery, on one accelerator: bash launch/bench_gpu.sh [PART ...] [--quick]
# Parts: smoke, cd, training, packs, models; all where none is named. Each takes at most 8 minutes and writes its rows
# as they are measured to tests/benchmarks/results/gpu/PART-<device>.json. --quick: small shapes, also on a CPU.
# EXTRAS chooses the extras that are installed; EXTRAS=cuda,torch adds PyTorch, which packs are then compared with.
set -euo pipefail
extras=hf
if command -v nvidia-smi > /dev/null; then extras=cuda,hf; fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "${EXTRAS:-$extras}"
python tests/benchmarks/gpu.py "$@"
