# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by the scripts that start a tool in several processes on a machine; each of them defines `usage`.

# usage_or_number POSITION ARGS...: --help prints the usage; so does a wrong number of arguments, or no whole number at
# POSITION, which is the last argument of the script's own.
usage_or_number() {
    local position=$1
    shift
    case "${1:-}" in -h | --help)
        usage
        exit
        ;;
    esac
    if [ $# -lt "$position" ] || ! [[ ${!position} =~ ^[1-9][0-9]*$ ]]; then
        usage >&2
        exit 2
    fi
}

# start TOOL PROCESSES ARGS...: becomes torchrun, which runs tools/TOOL.
start() {
    local tool=$1 processes=$2 threads root
    shift 2
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    # The processes share the cores; torchrun alone would leave each of them one.
    threads=$(($(nproc) / processes))
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}
    # A clone needn't be installed; where tools/ lies inside an installed package, that package is found by itself.
    if [ -d "$root/ldae" ]; then export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}; fi
    # The -- keeps torchrun from taking an option of the tool for an abbreviation of its own, as --num for --numa-binding.
    exec "${PYTHON:-python}" -m ldae.cli.torchrun \
        --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" \
        --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
        --nproc-per-node="$processes" --max-restarts="${MAX_RESTARTS:-0}" \
        -- "$root/tools/$tool" "$@" --launcher pytorch
}
