#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluate a checkpoint with one process a GPU (or, on a machine without GPUs, that many processes on gloo).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

usage() {
    cat <<TEXT
usage: tools/${0##*/} CONFIG CHECKPOINT PROCESSES [options of tools/test.py]

PROCESSES is the number of GPUs on this machine; without GPUs, the number of processes.
On several machines, start it on each with the same NNODES, MASTER_ADDR and PORT, and its own NODE_RANK.

environment: NNODES (1)  NODE_RANK (0)  MASTER_ADDR (127.0.0.1)  PORT (29500)  PYTHON (python)  OMP_NUM_THREADS

example:
  tools/${0##*/} configs/ldae/vit-b_pca.py work_dirs/vit-b_pca/epoch_400.pth 8
TEXT
}

usage_or_number 3 "$@"
start test.py "$3" "$1" "$2" "${@:4}"
