#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What one GPU has to show, in six minutes: checks, speed, a run on NCCL that is gone on with, a probe. A stage that fails, or
# takes longer than it may, is one FAIL line and the others go on; the exit status is their number.
#
#     OUT=gpu_results benchmarks/gpu_acceptance.sh      PYTHON=... names the interpreter, DEVICE=cpu tries the stages themselves
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${OUT:=gpu_results}" "${PYTHON:=python3}" "${DEVICE:=cuda}"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
SCRATCH=$(mktemp -d)
trap 'rm -rf "$SCRATCH"' EXIT
export PYTHON PYTHONUNBUFFERED=1 OMP_NUM_THREADS=4 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export TORCHINDUCTOR_CACHE_DIR=$SCRATCH/inductor
LAST=335   # seconds after which no further stage is started
failures=0

stage() {  # NAME SECONDS COMMAND...
    local name=$1 limit=$2 start=$SECONDS state=ok
    shift 2
    if ((SECONDS > LAST)); then
        state=skipped
    elif ! timeout -k 5 "$limit" "$@" >"$OUT/$name.log" 2>&1; then
        state=FAIL
        failures=$((failures + 1))
    fi
    local said
    said=$(grep -sE 'passed|failed|top-1|images/s|patches/s|ldae / it|^error' "$OUT/$name.log" | tail -1 | cut -c1-100)
    printf '%-10s %-8s %3d s  %s\n' "$name" "$state" $((SECONDS - start)) "$said" | tee -a "$OUT/table.txt"
}

git rev-parse --short HEAD 2>/dev/null | sed 's/^/commit /' | tee "$OUT/table.txt"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>/dev/null | tee -a "$OUT/table.txt"
STEP=("$PYTHON" benchmarks/train_step.py --device "$DEVICE" --bf16 --compile --no-mae)
SIZES=("base 128 10" "half-large 96 8" "large 48 6")
FIT=(--images 2048 --batch-size 256)
KNN=()
RUN=(--work-dir "$SCRATCH/run" --cfg-options train_dataloader.num_workers=4 default_hooks.online_knn.interval=1)
if [[ $DEVICE == cpu ]]; then  # the stages themselves, small
    SIZES=("tiny 2 1")
    FIT=(--images 128 --batch-size 32)
    KNN=(--train 3000 --test 500 --width 64)
fi

stage checks 70 "$PYTHON" -m pytest -q tests/gpu
for size in "${SIZES[@]}"; do
    read -r name batch steps <<<"$size"
    stage "step_$name" 60 "${STEP[@]}" --size "$name" --batch-size "$batch" --steps "$steps"
done
stage fit_pca 15 "$PYTHON" benchmarks/pca_fit.py --device "$DEVICE" "${FIT[@]}" --no-sklearn
stage knn 20 "$PYTHON" benchmarks/knn.py --device "$DEVICE" ${KNN[@]+"${KNN[@]}"}
stage nccl 60 env PORT=29511 tools/dist_train.sh configs/ldae/demo_fashion-mnist.py 1 --fast --epochs 2 "${RUN[@]}"
stage resume 40 env PORT=29512 tools/dist_train.sh configs/ldae/demo_fashion-mnist.py 1 --fast --epochs 3 --resume "${RUN[@]}"
stage probe 25 "$PYTHON" tools/probe.py "$SCRATCH/run/epoch_3.pth" --work-dir "$SCRATCH/probe"
echo "total $SECONDS s, $failures failed" | tee -a "$OUT/table.txt"
exit "$failures"
