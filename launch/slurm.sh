#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A Slurm job on all GPUs of its nodes: bash launch/slurm.sh [--dry-run] [--cpus] --nodes 2 --gpus-per-node 8 --time 12:00:00 \
#   -- run CONFIG --workdir /shared/runs/NAME --mesh.member 2 --mesh.data 8
# Before `--`: what sbatch is given beside the options below. After it: what ncjax is given. The folder of ncjax and the work
# directory lie where all nodes see them. One process a node, or --ntasks-per-node N, which share its GPUs evenly. --cpus: no
# GPUs; a process has JAX_NUM_CPU_DEVICES devices (1). Three minutes before the time limit SIGTERM makes ncjax write a
# checkpoint, and the job queues again under the same number (launch/slurm_job.sh). Inside an allocation (salloc) it starts at once.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

dry='' cpus='' options=()
while (($#)) && [[ $1 != -- ]]; do
    case $1 in
    --dry-run) dry=1 ;;
    --cpus) cpus=1 ;;
    *) options+=("$1") ;;
    esac
    shift
done
[[ ${1:-} == -- ]] && shift
(($#)) || fail "needs sbatch's options, then -- and what ncjax is given (the head of launch/slurm.sh has an example)"
[[ " $* " == *" --workdir"[=\ ]* ]] || fail "name --workdir after --: a folder that every node sees, the same at each restart"
job=(${cpus:+--cpus} -- "$@")

# given DEFAULT NAME...: the count that sbatch is given under one of these names, as in --gpus-per-node h100:8.
given() {
    local value=$1 name i
    for name in "${@:2}"; do
        for i in "${!options[@]}"; do
            [[ ${options[i]} != "$name" ]] || value=${options[i + 1]:-}
            [[ ${options[i]} != "$name="* ]] || value=${options[i]#*=}
        done
    done
    [[ ${value##*:} =~ ^[0-9]+$ ]] || fail "${*:2} is '$value', but must be a whole number"
    echo "${value##*:}"
}

tasks=$(given "${SLURM_NTASKS_PER_NODE:-1}" --ntasks-per-node)
if [[ ${SLURM_JOB_ID:-} && ! $dry ]]; then
    SLURM_NTASKS_PER_NODE=$tasks exec bash "$ROOT/launch/slurm_job.sh" "${job[@]}"
fi
[[ $dry ]] || command -v sbatch >/dev/null || fail "sbatch is missing: run this on a login node of a Slurm cluster"
nodes=$(given 1 -N --nodes)
gpus=$(given 0 --gpus-per-node)
if [[ ! $cpus ]]; then
    ((gpus)) || fail "name --gpus-per-node before --, such as --gpus-per-node 8, or --cpus"
    ((gpus % tasks == 0)) || fail "$gpus GPUs of a node cannot be shared evenly by $tasks processes"
fi
submit=(sbatch --job-name=ncjax --exclusive --ntasks-per-node=1 --signal=B:TERM@180 --requeue --open-mode=append
    --output=slurm-%j.log "${options[@]}" --wrap "$(typed exec bash "$ROOT/launch/slurm_job.sh" "${job[@]}")")
if [[ $dry ]]; then
    typed "${submit[@]}"
    echo "# and in the job, where a node has C cores:"
    SLURM_JOB_NUM_NODES=$nodes SLURM_NTASKS_PER_NODE=$tasks SLURM_GPUS_ON_NODE=$gpus \
        bash "$ROOT/launch/slurm_job.sh" --dry-run "${job[@]}"
else
    setup "$([[ $cpus ]] || echo cuda)"
    "${submit[@]}"
fi
