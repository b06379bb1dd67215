#!/usr/bin/env bash
# A sweep as one Slurm job over several nodes: bash launch/slurm.sh [--dry-run] CONFIG WORKDIR [sweep flags]
# NODES (2), GPUS a node (8, 0 for CPU nodes) and TIME (24:00:00) size it; SBATCH_PARTITION, SBATCH_ACCOUNT and the like
# are sbatch's own. WORKDIR must be on a file system that all nodes share. --dry-run prints the job and submits nothing.
# One minute and a half before its end, and when preempted, the job checkpoints, leaves with 75 and is queued again.
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
if [ $# -lt 2 ]; then
  echo "usage: bash launch/slurm.sh [--dry-run] CONFIG WORKDIR [sweep flags]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
gpus=${GPUS:-8}
command=$(printf '%q ' "${VENV:-.venv}/bin/python" -m jaxconcepts sweep "--config=$1" "--workdir=$2" "${@:3}")

# JAX finds the other processes by itself on Slurm, and takes one task a GPU.
job=$(
  cat << EOF
#!/usr/bin/env bash
#SBATCH --job-name=jaxconcepts
#SBATCH --nodes=${NODES:-2}
#SBATCH --ntasks-per-node=$((gpus > 0 ? gpus : 1))
#SBATCH --time=${TIME:-24:00:00}
#SBATCH --signal=TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jaxconcepts-%j.log
#SBATCH --chdir=$PWD
EOF
  if [ "$gpus" -gt 0 ]; then echo "#SBATCH --gpus-per-node=$gpus"; fi
  cat << EOF
code=0
srun --kill-on-bad-exit=1 $command|| code=\$?
if [ "\$code" -eq 75 ]; then scontrol requeue "\$SLURM_JOB_ID"; fi
exit "\$code"
EOF
)
if [ "$dry_run" ]; then echo "$job"; else sbatch <<< "$job"; fi
