#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs a command again while it was stopped or killed: bash launch/again.sh [--dry-run] [--tries N] COMMAND...
# It goes on after exit code 75 (stopped after a checkpoint) and after death by a signal, N times at most (100), and pauses
# 10 s before the first time, twice as long before each next one up to 10 minutes, from 10 s again after an hour's work.
# Any other code ends it, with that code. SIGTERM, SIGINT and SIGHUP reach the command as SIGTERM, and it is the last time.

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"
set +e # exit codes are what this is about

tries=100 dry=
while [[ ${1:-} == --* ]]; do
    case $1 in
    --dry-run) dry=1 ;;
    --tries)
        tries=${2:-}
        shift
        ;;
    *) fail "unknown option $1; use --dry-run or --tries N" ;;
    esac
    shift
done
[[ $tries =~ ^[0-9]+$ ]] || fail "--tries needs a whole number, not '$tries'"
(($#)) || fail "needs a command, such as: bash launch/again.sh ncjax run configs/coarse_cifar10.py"

if [[ $dry ]]; then
    typed "$@"
    echo "# and again, at most $tries times, after exit code 75 or death by a signal"
    exit
fi

child='' stopped=
trap 'stopped=1; [[ -z $child ]] || kill -TERM "$child" 2>/dev/null' TERM INT HUP

first_pause=${AGAIN_PAUSE:-10} pause=${AGAIN_PAUSE:-10}
for ((try = 0; ; try++)); do
    SECONDS=0
    "$@" &
    child=$!
    until wait "$child" || ! kill -0 "$child" 2>/dev/null; do :; done # a signal ends `wait` before the command
    wait "$child"
    code=$?
    [[ -z $stopped ]] && ((code == 75 || (code > 128 && code <= 192 && code != 130))) || exit "$code"
    ((try < tries)) || { echo "ncjax: exit code $code, $tries times run again: giving up" >&2 && exit "$code"; }
    ((SECONDS < 3600)) || pause=$first_pause
    echo "ncjax: exit code $code after $SECONDS s; the same command goes on in $pause s ($((try + 1)) of $tries)" >&2
    sleep "$pause" &
    child=$!
    wait "$child"
    [[ $stopped ]] && exit "$code"
    pause=$((pause * 2 < 600 ? pause * 2 : 600))
done
