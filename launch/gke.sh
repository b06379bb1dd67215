#!/usr/bin/env bash
# A sweep on GKE as a JobSet: IMAGE=... bash launch/gke.sh [--dry-run] tpu|gpu CONFIG gs://WORKDIR [sweep flags]
# IMAGE: a container image with this repository as its working directory, installed with the extra tpu or cuda.
# NAME (jaxconcepts) of the JobSet. tpu: TOPOLOGY (v5p:4x4x4, as for `plan`), SLICES (1) of it.
# gpu: NODES (2) with GPUS (8) each of the kind ACCELERATOR (nvidia-h100-80gb).
# --dry-run prints the manifest and submits nothing. The cluster needs the JobSet operator (0.8 or later).
set -euo pipefail
dry_run=
if [ "${1:-}" = --dry-run ]; then dry_run=1 && shift; fi
if [ $# -lt 3 ] || [[ "$1" != tpu && "$1" != gpu ]] || [ -z "${IMAGE:-}" ]; then
  echo "usage: IMAGE=... bash launch/gke.sh [--dry-run] tpu|gpu CONFIG gs://WORKDIR [sweep flags]" >&2
  exit 2
fi
if [[ "$3" != gs://* ]]; then
  echo "WORKDIR must be in a bucket, gs://..., which all pods share; got $3" >&2
  exit 2
fi
manifest=$(dirname "${BASH_SOURCE[0]}")/gke_$1.yaml

if [ "$1" = tpu ]; then
  topology=${TOPOLOGY:-v5p:4x4x4}
  case ${topology%%:*} in
    v5e) ACCELERATOR=tpu-v5-lite-podslice ;;
    v5p) ACCELERATOR=tpu-v5p-slice ;;
    v6e) ACCELERATOR=tpu-v6e-slice ;;
    *) echo "TOPOLOGY must be of v5e, v5p or v6e, such as v6e:8x8; got $topology" >&2 && exit 2 ;;
  esac
  SHAPE=${topology#*:}
  if [[ ! "$SHAPE" =~ ^[0-9]+(x[0-9]+){1,2}$ ]]; then
    echo "TOPOLOGY must end in the slice's shape, such as v6e:8x8; got $topology" >&2
    exit 2
  fi
  chips=$((${SHAPE//x/*}))
  # A host has four chips, but for the smallest slices.
  CHIPS=$((chips < 4 ? chips : 4))
  HOSTS=$((chips / CHIPS))
fi

arguments=
for argument in "--config=$2" "--workdir=$3" "${@:4}"; do
  # A YAML string in double quotes.
  quoted=${argument//\\/\\\\}
  arguments+=", \"${quoted//\"/\\\"}\""
done
rendered=$(< "$manifest")
for field in "NAME=${NAME:-jaxconcepts}" "IMAGE=$IMAGE" "ARGUMENTS=$arguments" "SLICES=${SLICES:-1}" \
  "HOSTS=${HOSTS:-}" "CHIPS=${CHIPS:-}" "SHAPE=${SHAPE:-}" "NODES=${NODES:-2}" "GPUS=${GPUS:-8}" \
  "ACCELERATOR=${ACCELERATOR:-nvidia-h100-80gb}"; do
  rendered=${rendered//"{{${field%%=*}}}"/"${field#*=}"}
done
if [ "$dry_run" ]; then echo "$rendered"; else kubectl apply --filename=- <<< "$rendered"; fi
