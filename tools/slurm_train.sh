#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train under Slurm, one task a GPU (or, without GPUs, that many tasks on gloo).
set -euo pipefail

usage() {
    cat <<TEXT
usage: tools/${0##*/} PARTITION JOB_NAME CONFIG [options of tools/train.py]

environment: GPUS (8)  GPUS_PER_NODE (8, or GPUS if fewer; 0: no GPUs, GPUS tasks)  CPUS_PER_TASK (5)
             SRUN_ARGS (further options of srun)  MASTER_PORT (29500)  PYTHON (python)
             REQUEUE (1; 0: don't)  SIGNAL_SECONDS (120): how long before the time limit the job is told to save

Shortly before its time limit, or when it is preempted, the job saves after the next step and exits with 75. It is then
started again, with --resume: as a new job by this script, or, inside sbatch, by requeueing the batch job. Any other end
is the end.

example:
  GPUS=16 tools/${0##*/} gpu ldae configs/ldae/vit-b_pca.py --data-root data/imagenet
  GPUS=8 sbatch --requeue -p gpu -N 1 --ntasks=8 --gres=gpu:8 --cpus-per-task=5 --signal=USR1@120 \
      --wrap "tools/${0##*/} gpu ldae configs/ldae/vit-b_pca.py --data-root data/imagenet"
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

SAVED=75 # the exit status of a run that has stopped for a signal, with a checkpoint
RESUME=()
while true; do
    STATUS=0
    srun -p "$PARTITION" --job-name="$JOB_NAME" --signal="USR1@${SIGNAL_SECONDS:-120}" \
        --ntasks="$GPUS" --ntasks-per-node="$TASKS_PER_NODE" --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 ${EXTRA[@]+"${EXTRA[@]}"} \
        "${PYTHON:-python}" -u "$ROOT/tools/train.py" "$@" ${RESUME[@]+"${RESUME[@]}"} --launcher slurm || STATUS=$?
    if [ "$STATUS" -ne "$SAVED" ] || [ "${REQUEUE:-1}" = 0 ]; then exit "$STATUS"; fi
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        # Inside a batch job, which Slurm starts again from its beginning: train.py sees SLURM_RESTART_COUNT and resumes.
        scontrol requeue "$SLURM_JOB_ID"
        exit "$STATUS"
    fi
    echo "${0##*/}: saved before the end of the job; submitted again with --resume" >&2
    RESUME=(--resume)
done
