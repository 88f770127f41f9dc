#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Score a pre-trained checkpoint by a benchmark, with one process a GPU (or, on a machine without GPUs, that many processes on gloo).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

usage() {
    cat <<TEXT
usage: tools/${0##*/} CONFIG CHECKPOINT PROCESSES [options of ldae benchmark]

CONFIG is a file of configs/benchmarks, or linear, finetune, linear_1pct, linear_10pct or knn: then it is fitted to CHECKPOINT,
a file that pre-training wrote, and to the images. The score is in the last line, and in benchmark.json in the work directory.
PROCESSES is the number of GPUs on this machine; without GPUs, the number of processes.
On several machines, start it on each with the same NNODES, MASTER_ADDR and PORT, and its own NODE_RANK.

environment: NNODES (1)  NODE_RANK (0)  MASTER_ADDR (127.0.0.1)  PORT (29500)  PYTHON (python)  OMP_NUM_THREADS

example:
  tools/${0##*/} linear work_dirs/vit-b_pca/epoch_400.pth 8 --data-root data/imagenet
TEXT
}

usage_or_number 3 "$@"
start benchmark.py "$3" "$1" "$2" "${@:4}"
