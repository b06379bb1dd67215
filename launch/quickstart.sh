#!/usr/bin/env bash
# Installs what is needed and runs the quickstart on this machine's CPU: bash launch/quickstart.sh [DIR] [--config.seed=1 ...]
# Run again with the same DIR it goes on where it stopped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
workdir=${1:-runs/quickstart}
JAX_PLATFORMS=cpu python -m jaxconcepts train --config=configs/quickstart.py --workdir="$workdir" "${@:2}"
