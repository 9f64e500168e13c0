#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A Slurm job on all GPUs of its nodes: bash launch/slurm.sh [--dry-run] --nodes 2 --gpus-per-node 8 --time 12:00:00 \
#   -- run CONFIG --workdir /shared/runs/NAME --mesh.member 2 --mesh.data 8
# Before `--`: what sbatch is given beside the options below. After it: what ncjax is given. The folder of ncjax and the work
# directory lie where all nodes see them. One process a node; three minutes before the time limit SIGTERM makes it write a
# checkpoint, and the job queues itself again under the same number. Inside an allocation (salloc) it starts at once.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

readonly RESTARTS=100

dry='' options=()
while (($#)) && [[ $1 != -- ]]; do
    [[ $1 == --dry-run ]] && dry=1 || options+=("$1")
    shift
done
[[ ${1:-} == -- ]] && shift
(($#)) || fail "needs sbatch's options, then -- and what ncjax is given (the head of launch/slurm.sh has an example)"
[[ " $* " == *" --workdir"[=\ ]* ]] || fail "name --workdir after --: a folder that every node sees, the same at each restart"

submit() {
    local job=(sbatch --job-name=ncjax --exclusive --ntasks-per-node=1 --signal=TERM@180 --requeue --open-mode=append
        --output=slurm-%j.log "${options[@]}" --wrap "$(typed bash "$ROOT/launch/slurm.sh" -- "$@")")
    if [[ $dry ]]; then
        typed "${job[@]}"
        echo "# and in the job, for each node, with its count of GPUs:"
        SLURM_JOB_NUM_NODES=N SLURM_GPUS_ON_NODE=G SLURM_CPUS_ON_NODE=C start "$@"
        return
    fi
    command -v sbatch >/dev/null || fail "sbatch is missing: run this on a login node of a Slurm cluster"
    [[ " ${options[*]}" == *" --gpus-per-node"* ]] || fail "name --gpus-per-node before --, such as --gpus-per-node 8"
    setup cuda
    "${job[@]}"
}

# One process a node that takes all its GPUs: left alone, JAX gives a process under Slurm only the one of its number.
start() {
    local gpus=$SLURM_GPUS_ON_NODE ids=0,...,G-1 total='N x G'
    if [[ -z $dry ]]; then
        total=$((SLURM_JOB_NUM_NODES * gpus)) ids=$(seq -s, 0 $((gpus - 1)))
    fi
    local step=(srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}" --kill-on-bad-exit=0 --wait=120
        env NCJAX_DISTRIBUTED=auto NCJAX_DEVICES="$total" JAX_LOCAL_DEVICE_IDS="$ids" "$VENV/bin/ncjax" "$@")
    if [[ $dry ]]; then typed "${step[@]}"; else "${step[@]}"; fi
}

if [[ -z ${SLURM_JOB_ID:-} ]]; then
    submit "$@"
    exit
fi
[[ -n ${SLURM_GPUS_ON_NODE:-} ]] || fail "the job holds no GPU; ask for them with --gpus-per-node"
if [[ $dry ]]; then
    start "$@"
    exit
fi
trap : TERM # for the steps, which end; then this script queues the job again
code=0
start "$@" || code=$?
if ((code == 75 || (code > 128 && code <= 192))) && ((${SLURM_RESTART_COUNT:-0} < RESTARTS)); then
    echo "ncjax: exit code $code; job $SLURM_JOB_ID queues again" >&2
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
