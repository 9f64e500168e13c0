#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a job of launch/slurm.sh runs: bash launch/slurm_job.sh [--dry-run] [--cpus] -- run CONFIG --workdir /shared/runs/NAME ...
# ncjax in each process of each node. After exit code 75 or death by a signal the job queues again under the same number, 100 times
# at most; so it does where ncjax has not stopped STOP_SECS (60) after SIGTERM, and at the time limit. scancel ends it for good.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

readonly RESTARTS=100

dry='' cpus=''
[[ $1 != --dry-run ]] || { dry=1 && shift; }
[[ $1 != --cpus ]] || { cpus=1 && shift; }
shift # --
[[ $cpus || ${SLURM_GPUS_ON_NODE:-0} != 0 ]] || fail "the job holds no GPU; ask for them with --gpus-per-node, or give --cpus"

# Each process takes its share of the node's GPUs: left alone, JAX gives a process under Slurm only the one of its number.
nodes=$SLURM_JOB_NUM_NODES tasks=${SLURM_NTASKS_PER_NODE:-1} cores=C
if [[ $cpus ]]; then
    own=${JAX_NUM_CPU_DEVICES:-1}
    process=(env JAX_PLATFORMS=cpu)
else
    own=$((SLURM_GPUS_ON_NODE / tasks))
    # shellcheck disable=SC2016 # the process has its number
    first='$((SLURM_LOCALID * '$own'))' last='$((SLURM_LOCALID * '$own' + '$((own - 1))'))'
    process=(bash -c "JAX_LOCAL_DEVICE_IDS=\$(seq -s, $first $last) exec \"\$@\"" share)
fi
[[ $dry ]] || cores=$((SLURM_CPUS_ON_NODE > tasks ? SLURM_CPUS_ON_NODE / tasks : 1))
step=(srun --ntasks=$((nodes * tasks)) --ntasks-per-node="$tasks" --cpus-per-task="$cores" --kill-on-bad-exit=0 --wait=120
    env NCJAX_DISTRIBUTED=auto NCJAX_DEVICES=$((nodes * tasks * own)) "${process[@]}" "$VENV/bin/ncjax" "$@")
[[ ! $dry ]] || { typed "${step[@]}" && exit; }

# What Slurm says of the job: running; late, where its time limit has come; ended, by scancel or for a reason of Slurm's own.
state() {
    case $(scontrol show job "$SLURM_JOB_ID" 2>/dev/null || true) in
    '' | *JobState=RUNNING*) echo running ;;
    *Reason=TimeLimit*) echo late ;;
    *) echo ended ;;
    esac
}

# SIGTERM comes to this script, which passes it on to the processes.
warned='' told=''
trap 'warned=${warned:-$SECONDS}' TERM INT
"${step[@]}" &
srun=$!
while kill -0 $srun 2>/dev/null; do
    sleep 0.5 || true # the signal may be for all that runs here
    [[ $warned ]] || continue
    [[ $told ]] || scancel --signal=TERM "$SLURM_JOB_ID" || true
    told=1
    [[ $(state) == running ]] || break
    ((SECONDS - warned < ${STOP_SECS:-60})) || break
done
now=$(state) code=0
if [[ $now != ended ]] && kill $srun 2>/dev/null; then # it hangs: srun ends it
    code=75
else
    wait $srun || code=$?
fi
if [[ ${ENVIRONMENT:-} == BATCH && $now != ended ]] && ((code == 75 || (code > 128 && code <= 192))) &&
    ((${SLURM_RESTART_COUNT:-0} < RESTARTS)); then
    echo "ncjax: exit code $code; job $SLURM_JOB_ID queues again" >&2
    scontrol requeue "$SLURM_JOB_ID" || true
fi
exit "$code"
