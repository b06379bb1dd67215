#!/usr/bin/env bash
# A sweep on a Cloud TPU VM slice, on all its workers: bash launch/tpu_vm.sh [--dry-run] TPU CONFIG gs://WORKDIR [sweep flags]
# TPU: the name of a slice that is up. ZONE, PROJECT: gcloud's own defaults where not given. Copies the last commit to
# every worker, installs it there and starts the sweep, which goes on when this terminal is closed; its log is
# jaxconcepts.log on each worker. --dry-run prints the commands and runs nothing.
# A worker that is told to stop (75) starts again as soon as it can; a slice that was taken away needs this command again.
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
if [ $# -lt 3 ]; then
  echo "usage: bash launch/tpu_vm.sh [--dry-run] TPU CONFIG gs://WORKDIR [sweep flags]" >&2
  exit 2
fi
if [[ "$3" != gs://* ]]; then
  echo "WORKDIR must be in a bucket, gs://..., which all workers share; got $3" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tpu=$1
where=(--worker=all)
if [ -n "${ZONE:-}" ]; then where+=("--zone=$ZONE"); fi
if [ -n "${PROJECT:-}" ]; then where+=("--project=$PROJECT"); fi
sweep=$(printf '%q ' .venv/bin/python -m jaxconcepts sweep "--config=$2" "--workdir=$3" "${@:4}")
install="mkdir -p jaxconcepts && tar -xzf jaxconcepts.tar.gz -C jaxconcepts && cd jaxconcepts && python3 -m venv .venv"
# The versions that were tested with that Python, where there are such.
install+=" && tested=launch/constraints-\$(.venv/bin/python -c 'import sys; print(*sys.version_info[:2], sep=\".\")').txt"
install+=" && if [ ! -f \$tested ]; then tested=/dev/null; fi"
install+=" && .venv/bin/python -m pip install --quiet --constraint=\$tested '.[tpu]'"
again="while :; do code=0; $sweep|| code=\$?; [ \$code -eq 75 ] || exit \$code; done"
start="cd jaxconcepts && nohup bash -c $(printf '%q' "$again") > ../jaxconcepts.log 2>&1 < /dev/null &"

run() {
  if [ "$dry_run" ]; then printf '%q ' "$@" && echo; else "$@"; fi
}
archive=${TMPDIR:-/tmp}/jaxconcepts.tar.gz
run git archive --format=tar.gz "--output=$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$tpu:jaxconcepts.tar.gz" "${where[@]}"
run gcloud compute tpus tpu-vm ssh "$tpu" "${where[@]}" "--command=$install"
run gcloud compute tpus tpu-vm ssh "$tpu" "${where[@]}" "--command=$start"
