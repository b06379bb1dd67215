# shellcheck shell=bash
# Sourced by the scripts beside it: makes .venv if it is not there, installs this package with the extras in $1 into it,
# and defines `python` as its interpreter. PYTHON chooses the interpreter that .venv is made with, VENV another folder.
# The versions are those that were tested (constraints-<Python's version>.txt); with LATEST=1 they are the newest.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
VENV=${VENV:-.venv}
# Says every few seconds that it goes on; the sleep must not hold the terminal open once that is over.
while sleep 3 > /dev/null 2>&1; do echo "  … installing: $SECONDS s"; done &
ticker=$!
trap 'kill "$ticker" 2> /dev/null || true' EXIT
if [ ! -x "$VENV/bin/python" ]; then
  "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or later is needed, got $("${PYTHON:-python3}" --version); choose one with PYTHON=..." >&2
    exit 2
  }
  echo "making $VENV"
  "${PYTHON:-python3}" -m venv "$VENV"
fi
tested=launch/constraints-$("$VENV/bin/python" -c 'import sys; print(*sys.version_info[:2], sep=".")').txt
if [ "${LATEST:-}" ]; then
  versions=(--upgrade --upgrade-strategy=eager)
  echo "installing jaxconcepts${1:+[$1]} and the newest of all that it needs into $VENV"
elif [ -f "$tested" ]; then
  versions=("--constraint=$tested")
  echo "installing jaxconcepts${1:+[$1]} into $VENV, versions as in $tested"
else
  versions=()
  echo "installing jaxconcepts${1:+[$1]} into $VENV; there is no $tested, so what it needs comes in its newest versions"
fi
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "${versions[@]}" --editable ".${1:+[$1]}"
kill "$ticker" 2> /dev/null || true
trap - EXIT
echo "installed after $SECONDS s"
python() { "$VENV/bin/python" "$@"; }
