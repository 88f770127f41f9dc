#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train under Slurm, one task a GPU (or, without GPUs, that many tasks on gloo).
set -euo pipefail

usage() {
    cat <<TEXT
usage: tools/${0##*/} PARTITION JOB_NAME CONFIG [options of tools/train.py]

environment: GPUS (8)  GPUS_PER_NODE (8, or GPUS if fewer; 0: no GPUs, GPUS tasks)  CPUS_PER_TASK (5)
             SRUN_ARGS (further options of srun)  MASTER_PORT (29500)  PYTHON (python)

example:
  GPUS=16 tools/${0##*/} gpu ldae configs/ldae/vit-b_pca.py --data-root data/imagenet
TEXT
}

case "${1:-}" in -h | --help)
    usage
    exit
    ;;
esac
if [ $# -lt 3 ]; then
    usage >&2
    exit 2
fi
PARTITION=$1
JOB_NAME=$2
shift 2

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}
TASKS_PER_NODE=$((GPUS_PER_NODE > 0 ? GPUS_PER_NODE : GPUS))
read -r -a EXTRA <<<"${SRUN_ARGS:-}"
if [ "$GPUS_PER_NODE" -gt 0 ]; then EXTRA+=("--gres=gpu:$GPUS_PER_NODE"); fi
# A clone needn't be installed; where tools/ lies inside an installed package, that package is found by itself.
if [ -d "$ROOT/ldae" ]; then export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}; fi

exec srun -p "$PARTITION" --job-name="$JOB_NAME" \
    --ntasks="$GPUS" --ntasks-per-node="$TASKS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 ${EXTRA[@]+"${EXTRA[@]}"} \
    "${PYTHON:-python}" -u "$ROOT/tools/train.py" "$@" --launcher slurm
