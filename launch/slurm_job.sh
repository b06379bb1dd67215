# shellcheck shell=bash
# Sourced by the Slurm scripts beside it, whose arguments it reads: [--dry-run] CONFIG WORKDIR [sweep flags]. Defines
# `submit`, which makes the job of a sweep with them and submits it, or prints it.
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
if [ $# -lt 2 ]; then
  echo "usage: bash launch/${0##*/} [--dry-run] CONFIG WORKDIR [sweep flags]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
command=$(printf '%q ' "${VENV:-.venv}/bin/python" -m jaxconcepts sweep "--config=$1" "--workdir=$2" "${@:3}")

# submit OPTIONS FLAG JOB DIRECTIVES...: srun's OPTIONS, one more FLAG of the sweep (both quoted, a blank at their end, or
# empty), and the id under which a checkpointed JOB is queued again, which may name the job's own variables.
submit() {
  local job
  job=$(
    cat << END
#!/usr/bin/env bash
#SBATCH --job-name=jaxconcepts
#SBATCH --time=${TIME:-24:00:00}
#SBATCH --signal=TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --chdir=$PWD
$(printf '#SBATCH --%s\n' "${@:4}")
code=0
srun $1$command$2|| code=\$?
if [ "\$code" -eq 75 ]; then scontrol requeue "$3"; fi
exit "\$code"
END
  )
  if [ "$dry_run" ]; then echo "$job"; else sbatch <<< "$job"; fi
}
