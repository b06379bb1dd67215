#!/usr/bin/env bash
# A sweep as one Slurm job over several nodes: bash launch/slurm.sh [--dry-run] CONFIG WORKDIR [sweep flags]
# NODES (2), GPUS a node (8, 0 for CPU nodes) and TIME (24:00:00) size it; SBATCH_PARTITION, SBATCH_ACCOUNT and the like
# are sbatch's own. WORKDIR must be on a file system that all nodes share. --dry-run prints the job and submits nothing.
# One minute and a half before its end, and when preempted, the job checkpoints, leaves with 75 and is queued again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/slurm_job.sh"
gpus=${GPUS:-8}
# JAX finds the other processes by itself on Slurm, and takes one task a GPU.
directives=("nodes=${NODES:-2}" "ntasks-per-node=$((gpus > 0 ? gpus : 1))" "output=jaxconcepts-%j.log")
if [ "$gpus" -gt 0 ]; then directives+=("gpus-per-node=$gpus"); fi
submit "--kill-on-bad-exit=1 " "" "\$SLURM_JOB_ID" "${directives[@]}"
