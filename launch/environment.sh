# shellcheck shell=bash
# Sourced by the scripts beside it: makes .venv if it is not there, installs this package with the extras in $1 into it,
# and defines `python` as its interpreter. PYTHON chooses the interpreter that .venv is made with, VENV another folder.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
VENV=${VENV:-.venv}
if [ ! -x "$VENV/bin/python" ]; then
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or later is needed, got $("${PYTHON:-python3}" --version); choose one with PYTHON=..." >&2
    exit 2
  }
  "${PYTHON:-python3}" -m venv "$VENV"
fi
echo "installing jaxconcepts${1:+[$1]} into $VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}"
python() { "$VENV/bin/python" "$@"; }
