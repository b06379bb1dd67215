#!/usr/bin/env bash
# Installs what is needed and runs the whole test suite: bash launch/test.sh [pytest arguments]
# PYTHON=python3.12 chooses the interpreter. `bash launch/test.sh -m "not slow"` leaves out what takes long.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "test"
# A file's tests share compiled programs, so a file stays on one worker.
python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder "$@"
