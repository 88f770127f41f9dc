#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train with one process a GPU (or, on a machine without GPUs, that many processes on gloo).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"

usage() {
    cat <<TEXT
usage: tools/${0##*/} CONFIG PROCESSES [options of tools/train.py]

PROCESSES is the number of GPUs on this machine; without GPUs, the number of processes.
On several machines, start it on each with the same NNODES, MASTER_ADDR and PORT, and its own NODE_RANK.

environment: NNODES (1)  NODE_RANK (0)  MASTER_ADDR (127.0.0.1)  PORT (29500)  PYTHON (python)  OMP_NUM_THREADS
             MAX_RESTARTS (0): how often processes that died are started again, to go on from the last checkpoint

SIGTERM or SIGUSR1 to this script, or Ctrl-C: the processes save after the next step, and it exits with 75, after Ctrl-C
with 130; go on with --resume.

example:
  tools/${0##*/} configs/ldae/vit-b_pca.py 8 --data-root data/imagenet --amp
TEXT
}

usage_or_number 2 "$@"
start train.py "$2" "$1" "${@:3}"
