#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train with one process a GPU (or, on a machine without GPUs, that many processes on gloo).
set -euo pipefail

usage() {
    cat <<TEXT
usage: tools/${0##*/} CONFIG PROCESSES [options of tools/train.py]

PROCESSES is the number of GPUs on this machine; without GPUs, the number of processes.
On several machines, start it on each with the same NNODES, MASTER_ADDR and PORT, and its own NODE_RANK.

environment: NNODES (1)  NODE_RANK (0)  MASTER_ADDR (127.0.0.1)  PORT (29500)  PYTHON (python)  OMP_NUM_THREADS
             MAX_RESTARTS (0): how often processes that died are started again, to go on from the last checkpoint

SIGTERM or SIGUSR1 to this script: the processes save after the next step, and it exits with 75; go on with --resume.

example:
  tools/${0##*/} configs/ldae/vit-b_pca.py 8 --data-root data/imagenet --amp
TEXT
}

case "${1:-}" in -h | --help)
    usage
    exit
    ;;
esac
if [ $# -lt 2 ] || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
    usage >&2
    exit 2
fi
CONFIG=$1
PROCESSES=$2
shift 2

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PYTHON=${PYTHON:-python}
# The processes share the cores; torchrun alone would leave each of them one.
THREADS=$(($(nproc) / PROCESSES))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((THREADS > 0 ? THREADS : 1))}
# A clone needn't be installed; where tools/ lies inside an installed package, that package is found by itself.
if [ -d "$ROOT/ldae" ]; then export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}; fi

exec "$PYTHON" -m ldae.cli.torchrun \
    --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
    --nproc-per-node="$PROCESSES" --max-restarts="${MAX_RESTARTS:-0}" \
    "$ROOT/tools/train.py" "$CONFIG" --launcher pytorch "$@"
