#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All GPUs of this machine: bash launch/multi_gpu.sh [--dry-run] [--per-gpu] run CONFIG --mesh.data 8 ...
# One process sees all GPUs, which is JAX's way; --per-gpu starts one process for each. CUDA_VISIBLE_DEVICES chooses GPUs.
# What follows goes to ncjax. Exit code 75: stopped or killed, the same command goes on (launch/again.sh does it).

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

dry='' per_gpu=''
while [[ ${1:-} == --* ]]; do
    case $1 in
    --dry-run) dry=1 ;;
    --per-gpu) per_gpu=1 ;;
    *) fail "unknown option $1; use --dry-run or --per-gpu, then what ncjax is given" ;;
    esac
    shift
done
(($#)) || fail "needs what ncjax is given, such as: bash launch/multi_gpu.sh run configs/coarse_cifar10.py --mesh.data 8"

command -v nvidia-smi >/dev/null || fail "nvidia-smi is missing: is the NVIDIA driver installed? (CPU: bash launch/local.sh)"
mapfile -t listed < <(nvidia-smi --list-gpus)
((${#listed[@]})) || fail "nvidia-smi lists no GPU"
gpus=("${!listed[@]}")
[[ -z ${CUDA_VISIBLE_DEVICES:-} ]] || IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
count=${#gpus[@]}
((count <= ${#listed[@]})) || fail "CUDA_VISIBLE_DEVICES names $count GPUs, but nvidia-smi lists ${#listed[@]}"

# The variables of process I, or of the only one.
variables() {
    echo "NCJAX_DEVICES=$count"
    [[ -z $per_gpu ]] || printf '%s\n' "NCJAX_COORDINATOR=localhost:${NCJAX_PORT:-8476}" "NCJAX_PROCESSES=$count" \
        "NCJAX_PROCESS=$1" "CUDA_VISIBLE_DEVICES=${gpus[$1]}"
}

[[ $dry ]] || setup cuda
processes=()
for ((i = 0; i < (per_gpu ? count : 1); i++)); do
    mapfile -t given < <(variables "$i")
    start=(env "${given[@]}" "$VENV/bin/ncjax" "$@")
    if [[ $dry ]]; then
        typed "${start[@]}"
    elif [[ $per_gpu ]]; then
        "${start[@]}" &
        processes+=($!)
    else
        exec "${start[@]}"
    fi
done

# Bad input (2) wins over a checkpoint or a kill (75), which wins over what it made the others say.
trap 'kill -TERM "${processes[@]}" 2>/dev/null || true' INT TERM
verdict=0
for process in "${processes[@]}"; do
    until wait "$process" || ! kill -0 "$process" 2>/dev/null; do :; done # a signal ends `wait` before the process
    code=0
    wait "$process" || code=$?
    ((code <= 128)) || code=75
    if ((code == 2 || verdict == 2)); then
        verdict=2
    elif ((code == 75 || verdict == 0)); then
        verdict=$code
    fi
done
exit "$verdict"
