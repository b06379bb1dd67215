#!/usr/bin/env bash
# Installs what is needed and runs the whole test suite: bash launch/test.sh [--latest] [pytest arguments]
# PYTHON=python3.12 chooses the interpreter. `bash launch/test.sh -m "not slow"` leaves out what takes long.
# --latest: in .venv-latest, against the newest of everything instead of the versions that were tested.
set -euo pipefail
if [ "${1:-}" = --latest ]; then
  export LATEST=1 VENV=${VENV:-.venv-latest}
  shift
fi
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "test"
# A file's tests share compiled programs, so a file stays on one worker. A worker that dies ends the run, which would
# otherwise wait for it for ever.
python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder --max-worker-restart=0 "$@"
