#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cloud TPU, one VM or a pod, from any machine with gcloud and this repository:
#   bash launch/tpu_vm.sh [--dry-run] NAME TYPE ZONE SHARED run CONFIG --mesh.data 8 ...
#   bash launch/tpu_vm.sh coarse v5litepod-64 us-west4-a gs://BUCKET run configs/coarse_cifar10.py --mesh.data 64
# SHARED, a bucket or NFS (HOST:/PATH), is mounted on every worker; the work directory is NAME on it, so that a machine that
# replaces a preempted one goes on with the same run. Environment: RUNTIME (v2-alpha-tpuv5-lite), SPOT (--spot; empty: not
# preemptible), TRIES (100), PAUSE (30 s). The machine is deleted at the end; after bad input (exit code 2) it is kept.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

dry=''
[[ ${1:-} != --dry-run ]] || { dry=1 && shift; }
(($# >= 5)) || fail "needs NAME TYPE ZONE SHARED and what ncjax is given (the head of launch/tpu_vm.sh has an example)"
name=$1 type=$2 zone=$3 shared=$4
shift 4
[[ " $* " != *" --workdir"[=\ ]* ]] || fail "--workdir is $name on $shared; leave it out"
[[ $name =~ ^[a-z][a-z0-9-]*$ ]] || fail "NAME is '$name', but must be small letters, digits and dashes"

spot=("${SPOT---spot}")
[[ ${spot[0]} ]] || spot=()

# Devices: chips, but cores of v2 and v3; the types of v4 and v5p count two cores a chip.
size=${type##*-}
[[ $size =~ ^[0-9]+$ ]] || fail "TYPE is '$type', but must end in a number, such as v5litepod-8"
case $type in v4-* | v5p-*) size=$((size / 2)) ;; esac

case $shared in
gs://*) mount="gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --rename-dir-limit=100000 ${shared#gs://} shared" ;;
*:/*) mount="sudo apt-get install -qy nfs-common && sudo mount -t nfs $shared shared" ;;
*) fail "SHARED is '$shared', but must be gs://BUCKET or HOST:/PATH" ;;
esac
read -r prepare <<END
mkdir -p ncjax shared && tar -xzf ncjax.tar.gz -C ncjax && { mountpoint -q shared || { $mount; }; } && { command -v python3.11 || sudo apt-get install -qy python3.11-venv; } && { pkill -x ncjax; while pgrep -x ncjax; do sleep 1; done; cd ncjax && PYTHON=python3.11 bash -c 'source launch/setup.sh && setup tpu'; }
END
work="cd ncjax && NCJAX_DISTRIBUTED=auto NCJAX_DEVICES=$size .venv/bin/ncjax $(typed "$@") --workdir ../shared/$name"

act() { if [[ $dry ]]; then typed "$@"; else "$@"; fi; }
queue() { act gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" "${@:2}"; }
on_all() { act gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }
state() { gcloud compute tpus queued-resources describe "$name" --zone="$zone" --format='value(state.state)' 2>/dev/null; }
create() {
    queue create --node-id="$name" --accelerator-type="$type" --runtime-version="${RUNTIME:-v2-alpha-tpuv5-lite}" "${spot[@]}"
}

# Waits until the machine is there; one that was taken away is asked for again.
acquire() {
    local now
    until now=$(state) && [[ $now == ACTIVE ]]; do
        case $now in
        '') create ;;
        FAILED | SUSPENDED) queue delete --force --quiet && create ;;
        *) echo "ncjax: $name is $now" ;;
        esac
        sleep "${PAUSE:-30}"
    done
}

attempt() {
    act gcloud compute tpus tpu-vm scp "$archive" "$name:ncjax.tar.gz" --zone="$zone" --worker=all &&
        on_all "$prepare" && on_all "$work"
}

archive=${TMPDIR:-/tmp}/ncjax-$name.tar.gz
[[ $dry ]] || command -v gcloud >/dev/null || fail "gcloud is missing; install the Google Cloud CLI"
act git -C "$ROOT" archive --format=tar.gz --output="$archive" HEAD
if [[ $dry ]]; then create && attempt && queue delete --force --quiet && exit; fi
for ((try = 0; try < ${TRIES:-100}; try++)); do
    acquire
    code=0
    attempt || code=$?
    ((code != 2)) || { dry=1 && echo "ncjax: $name is kept; delete it with: $(queue delete --force --quiet)" >&2 && exit 2; }
    ((code)) || { queue delete --force --quiet && exit; }
    echo "ncjax: exit code $code; the same run goes on ($((try + 1)) of ${TRIES:-100})" >&2
    sleep "${PAUSE:-30}"
done
fail "gave up after ${TRIES:-100} tries"
