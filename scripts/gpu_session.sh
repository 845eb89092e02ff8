#!/usr/bin/env bash
# What a GPU is wanted for, unattended, one phase a call:
#
#   scripts/gpu_session.sh kernels           the kernels' tests, compiled; then their benchmark
#   scripts/gpu_session.sh codec             streams from CPU to GPU and back; speed of the codec
#   scripts/gpu_session.sh train SECONDS CLIPS [VARIANT_SECONDS VARIANT.yaml ...]
#
# PYTHON names the interpreter (python3), OUT where results go (results/gpu), RUNS where runs lie
# (runs/gpu). A phase goes on after a failure and exits with 1 at the end.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${OUT:-results/gpu}
runs=${RUNS:-runs/gpu}
mkdir -p "$out"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
failed=0

run() {
    local name=$1 started=$SECONDS
    shift
    "$@" >"$out/$name.log" 2>&1
    local code=$?
    echo "== $name: exit $code, $((SECONDS - started)) s"
    tail -n "${LINES_SHOWN:-12}" "$out/$name.log"
    [ $code -eq 0 ] || failed=1
}

case ${1:-} in
kernels)
    run kernel_tests "$python" -m pytest -q -n 8 -p no:cacheprovider tests/kernels/*/triton_cases.py
    LINES_SHOWN=70 run kernel_bench "$python" -m lgmc bench kernels --device cuda \
        --json "$out/bench_kernels.json"
    ;;
codec)
    run device_tests "$python" -m pytest -q -p no:cacheprovider tests/codec/test_devices.py
    LINES_SHOWN=20 run codec_bench "$python" -m lgmc bench codec --device cuda \
        --json "$out/bench_codec.json"
    ;;
train)
    seconds=$2 clips=$3
    shift 3
    variants=()
    [ $# -eq 0 ] || variants=(--variant-seconds "$1" --variants "${@:2}")
    LINES_SHOWN=60 run train "$python" scripts/gpu_train.py configs/lite_gpu.yaml \
        --shares 44 56 --seconds "$seconds" --since "$(date +%s)" --data "$clips" --out "$runs" --keep "$out" "${variants[@]}"
    ;;
*)
    sed -n '2,10p' "$0"
    exit 2
    ;;
esac
exit $failed
