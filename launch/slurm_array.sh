#!/usr/bin/env bash
# A sweep as independent Slurm jobs that share WORKDIR: bash launch/slurm_array.sh [--dry-run] CONFIG WORKDIR [sweep flags]
# SHARDS (8) jobs of GPUS (1, 0 for CPU nodes) each, for TIME (24:00:00); SBATCH_PARTITION, SBATCH_ACCOUNT and the like are
# sbatch's own. --dry-run prints the job and submits nothing. Nothing waits for anything: shards start as nodes come free.
# A shard that is preempted or near its end checkpoints, leaves with 75 and is queued again, alone.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/slurm_job.sh"
shards=${SHARDS:-8} gpus=${GPUS:-1}
directives=("array=0-$((shards - 1))" ntasks=1 "output=jaxconcepts-%A-%a.log")
if [ "$gpus" -gt 0 ]; then directives+=("gpus-per-task=$gpus"); fi
id="\${SLURM_ARRAY_JOB_ID}_\${SLURM_ARRAY_TASK_ID}"
submit "" "\"--shard=\$SLURM_ARRAY_TASK_ID/$shards\" " "$id" "${directives[@]}"
