#!/usr/bin/env bash
# A sweep as independent Slurm jobs that share WORKDIR: bash launch/slurm_array.sh [--dry-run] CONFIG WORKDIR [sweep flags]
# SHARDS (8) jobs of GPUS (1, 0 for CPU nodes) each, for TIME (24:00:00); SBATCH_PARTITION, SBATCH_ACCOUNT and the like are
# sbatch's own. --dry-run prints the job and submits nothing. Nothing waits for anything: shards start as nodes come free.
# A shard that is preempted or near its end checkpoints, leaves with 75 and is queued again, alone.
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
if [ $# -lt 2 ]; then
  echo "usage: bash launch/slurm_array.sh [--dry-run] CONFIG WORKDIR [sweep flags]" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shards=${SHARDS:-8} gpus=${GPUS:-1}
command=$(printf '%q ' "${VENV:-.venv}/bin/python" -m jaxconcepts sweep "--config=$1" "--workdir=$2" "${@:3}")

job=$(
  cat << EOF
#!/usr/bin/env bash
#SBATCH --job-name=jaxconcepts
#SBATCH --array=0-$((shards - 1))
#SBATCH --ntasks=1
#SBATCH --time=${TIME:-24:00:00}
#SBATCH --signal=TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=jaxconcepts-%A-%a.log
#SBATCH --chdir=$PWD
EOF
  if [ "$gpus" -gt 0 ]; then echo "#SBATCH --gpus-per-task=$gpus"; fi
  cat << EOF
code=0
srun $command"--shard=\$SLURM_ARRAY_TASK_ID/$shards" || code=\$?
if [ "\$code" -eq 75 ]; then scontrol requeue "\${SLURM_ARRAY_JOB_ID}_\${SLURM_ARRAY_TASK_ID}"; fi
exit "\$code"
EOF
)
if [ "$dry_run" ]; then echo "$job"; else sbatch <<< "$job"; fi
