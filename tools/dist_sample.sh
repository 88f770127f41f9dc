#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sample images (tools/sample.py) with one process a GPU (or, on a machine without GPUs, that many processes on gloo).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

usage() {
    cat <<TEXT
usage: tools/${0##*/} CONFIG_OR_CHECKPOINT PROCESSES [options of tools/sample.py]

PROCESSES is the number of GPUs on this machine; without GPUs, the number of processes.
On several machines, start it on each with the same NNODES, MASTER_ADDR and PORT, and its own NODE_RANK.

environment: NNODES (1)  NODE_RANK (0)  MASTER_ADDR (127.0.0.1)  PORT (29500)  PYTHON (python)  OMP_NUM_THREADS

example:
  tools/${0##*/} work_dirs/vit-b_pca/epoch_400.pth 8 --num 50000 --out samples
TEXT
}

usage_or_number 2 "$@"
start sample.py "$2" "$1" "${@:3}"
