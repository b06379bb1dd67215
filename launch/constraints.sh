#!/usr/bin/env bash
# Writes launch/constraints-<Python's version>.txt, the versions installed in VENV (.venv-latest): bash launch/constraints.sh
# First `bash launch/test.sh --latest` must have passed there; see CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${VENV:-.venv-latest}/bin/python
file=launch/constraints-$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")').txt
# A version alone: no path or address that a package came from, no local build such as +cpu.
"$python" -m pip freeze --disable-pip-version-check --exclude-editable --exclude=jaxconcepts |
  grep -E '^[A-Za-z0-9._-]+==' | sed 's/+.*//' > "$file"
echo "$(wc -l < "$file") versions in $file"
