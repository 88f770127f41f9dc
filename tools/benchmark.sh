#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Score a pre-trained checkpoint by a benchmark, with one process a GPU (or, on a machine without GPUs, that many processes on gloo).
set -euo pipefail

usage() {
    cat <<TEXT
usage: tools/${0##*/} CONFIG CHECKPOINT PROCESSES [options of ldae benchmark]

CONFIG is a file of configs/benchmarks, or linear, finetune, linear_1pct or linear_10pct: then the one that fits CHECKPOINT,
a file that pre-training wrote. The score is in the last line, and in benchmark.json in the work directory.
PROCESSES is the number of GPUs on this machine; without GPUs, the number of processes.
On several machines, start it on each with the same NNODES, MASTER_ADDR and PORT, and its own NODE_RANK.

environment: NNODES (1)  NODE_RANK (0)  MASTER_ADDR (127.0.0.1)  PORT (29500)  PYTHON (python)  OMP_NUM_THREADS

example:
  tools/${0##*/} linear work_dirs/vit-b_pca/epoch_400.pth 8 --data-root data/imagenet
TEXT
}

case "${1:-}" in -h | --help)
    usage
    exit
    ;;
esac
if [ $# -lt 3 ] || ! [[ $3 =~ ^[1-9][0-9]*$ ]]; then
    usage >&2
    exit 2
fi
CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
shift 3

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
    --nproc-per-node="$PROCESSES" \
    "$ROOT/tools/benchmark.py" "$CONFIG" "$CHECKPOINT" --launcher pytorch "$@"
