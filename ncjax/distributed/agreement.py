# SPDX-License-Identifier: Apache-2.0
"""All processes compare what they are about to do before any of them computes, and say why they end.

Words go through the coordination service of `jax.distributed`: it needs no device, and no agreement on devices.
"""

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax._src.distributed import global_state  # JAX has no public name for its key-value store

from ncjax.distributed.signals import AGAIN, STOPPED
from ncjax.distributed.watch import watched
from ncjax.errors import Stopped, UserError
from ncjax.typed_json import differences

POLL_MS = 2000
LINGER_SECS = 5.0  # of the main process, which holds the store, for the others to read why it ends
ENDED = "ncjax/ended"
DIFFER = "the processes of this run differ"
_rounds = itertools.count()


def is_joined() -> bool:
    """Whether this process has joined others; starts no device."""
    return jax.distributed.is_initialized() and (global_state.num_processes or 1) > 1


def check_agreement(content: Mapping[str, Any]) -> None:
    """Stops all processes where they are about to do different things; nothing in a process alone.

    Args:
        content: what has to be the same, as JSON.

    Raises:
        UserError: on every process: what differs, and where.
        Stopped: another process has ended.
    """
    if not is_joined():
        return
    prefix, here = f"ncjax/agreement/{next(_rounds)}", global_state.process_id
    _client().key_value_set(f"{prefix}/{here}", json.dumps(content, default=str))
    with watched("the other processes to say what they run"):
        said = [json.loads(_received(f"{prefix}/{process}", process)) for process in range(global_state.num_processes)]
    found = _differing(said)
    if found:
        raise UserError(f"{DIFFER} ({found}); start all of them with the same command, versions and devices")


def check_devices() -> None:
    """Stops all processes where one has another number or kind of devices.

    Raises:
        UserError: on every process: what each has.
    """
    if is_joined():
        devices = jax.local_devices()
        check_agreement({"devices": f"{len(devices)} x {devices[0].device_kind}"})


def _client() -> Any:
    return global_state.client


def _differing(said: Sequence[Mapping[str, Any]]) -> str:
    """What differs from process 0; of fields that differ on several processes, the first."""
    found: dict[str, str] = {}
    for process, other in enumerate(said):
        for name, first, one in differences(said[0], other):
            found.setdefault(name, f"{name}: {first!r} on process 0, {one!r} on process {process}")
    return "; ".join(found.values())


def _received(key: str, process: int) -> str:
    """What a process said; waits as long as it lives."""
    while True:
        try:
            return str(_client().blocking_key_value_get(key, POLL_MS))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if process in (ended := others_ended()):
            raise Stopped(f"process {process} of this run has ended ({ended[process][1]})")


def say_why_ended(code: int, why: str) -> None:
    """Leaves a line for the other processes before this one ends with an exit code."""
    if not is_joined():
        return
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        _client().key_value_set(f"{ENDED}/{global_state.process_id}/{code}", why, allow_overwrite=True)
    if global_state.process_id == 0:
        time.sleep(LINGER_SECS)


def others_ended() -> Mapping[int, tuple[int, str]]:
    """Exit code and line of the others that have ended; none where the main process, which keeps them, is lost."""
    if not is_joined():
        return {}
    try:
        lines = {tuple(map(int, key.split("/")[-2:])): why for key, why in _client().key_value_dir_get(f"{ENDED}/")}
    except jax.errors.JaxRuntimeError:
        return {}
    return {process: (code, why) for (process, code), why in lines.items() if process != global_state.process_id}


def end_with_others() -> None:
    """Ends this process, from now on, within seconds where another one has failed, wherever it waits for it.

    One that stopped at a checkpoint is no reason: this process does the same, and may be a little behind. Nor is one
    that found that processes differ: each finds that by itself.
    """
    threading.Thread(target=_listen, name="ncjax-others", daemon=True).start()


def _listen() -> None:
    while True:
        time.sleep(POLL_MS / 1000)
        for process, (code, why) in others_ended().items():
            if code != STOPPED and DIFFER not in why:
                text = f"\nncjax: process {process} of this run has ended ({why}); {AGAIN}\n"
                os.write(2, text.encode())  # past the locks of sys.stderr
                os._exit(STOPPED)
