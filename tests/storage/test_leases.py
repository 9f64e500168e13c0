# SPDX-License-Identifier: Apache-2.0
"""A lock in a bucket has one holder: others are refused, and take it over only where it is not renewed."""

import os
import subprocess
import sys
import threading
import time

import pytest
import tensorstore

from ncjax.buckets import BucketPath
from ncjax.storage import leases
from ncjax.storage.leases import HeldElsewhere, leased
from tests.bucket_server import bucket_in_this_process
from tests.runs import ROOT

QUICK = {"RENEW_SECS": 0.2, "LEASE_SECS": 1.5, "POLL_SECS": 0.05}


@pytest.fixture(scope="module")
def store():
    with bucket_in_this_process() as server:
        yield server


@pytest.fixture
def lock(store, monkeypatch, request):
    for name, secs in QUICK.items():
        monkeypatch.setattr(leases, name, secs)
    yield BucketPath(f"gs://bucket1/{request.node.name}/.lock")
    store.fail_every = 0


def content(lock):
    return tensorstore.KvStore.open(f"{lock.parent}/").result().read(lock.name).result()


def test_it_is_there_while_it_is_held(lock):
    with leased(lock, "process 1 on a"):
        assert content(lock).value.startswith(b"process 1 on a\n")
        first = content(lock).stamp.generation
        time.sleep(1)
        assert content(lock).stamp.generation != first
    assert content(lock).state == "missing"


def test_a_living_holder_is_named(lock, capsys):
    with leased(lock, "process 1 on a"):
        with pytest.raises(HeldElsewhere, match="process 1 on a"), leased(lock, "process 2 on b"):
            pass
        assert "to see if it runs" in capsys.readouterr().err
        assert content(lock).value.startswith(b"process 1")


def test_the_end_of_a_living_holder_is_waited_for(lock):
    ended = threading.Event()

    def hold():
        with leased(lock, "process 1 on a"):
            ended.wait(0.7)

    first = threading.Thread(target=hold)
    first.start()
    while content(lock).state == "missing":
        time.sleep(0.01)
    with leased(lock, "process 2 on b", wait_secs=30.0):
        assert not first.is_alive()
    first.join()


def test_of_a_killed_one_it_is_taken_over_by_one_alone(lock):
    tensorstore.KvStore.open(f"{lock.parent}/").result().write(lock.name, "process 1 on a\nx").result()
    began, held, refused = time.monotonic(), [], []
    barrier = threading.Barrier(2)

    def take(name):
        barrier.wait()
        try:
            with leased(lock, name):
                held.append((name, time.monotonic() - began))
                time.sleep(1)
        except HeldElsewhere as error:
            refused.append(str(error))

    both = [threading.Thread(target=take, args=(f"process {number} on b",)) for number in (2, 3)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    ((winner, secs),) = held
    assert secs > QUICK["LEASE_SECS"]
    assert refused == [winner]


def test_who_finds_another_in_its_place_ends_at_once(lock, store):
    code = f"""
import time
from ncjax.buckets import BucketPath
from ncjax.storage import leases
vars(leases).update({QUICK})
with leases.leased(BucketPath("{lock}"), "process 1 on a"):
    print("held", flush=True)
    time.sleep(60)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    one = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=-1, stderr=-1, text=True)
    assert one.stdout.readline() == "held\n"
    tensorstore.KvStore.open(f"{lock.parent}/").result().write(lock.name, "process 2 on b\nx").result()
    _, said = one.communicate(timeout=30)
    assert one.returncode == 1
    assert "process 2 on b has taken over" in said
    assert content(lock).value == b"process 2 on b\nx"


def test_a_store_that_fails_now_and_then_changes_no_holder(lock, store):
    store.fail_every = 3
    with leased(lock, "process 1 on a"):
        time.sleep(2)
    store.fail_every = 0
    assert content(lock).state == "missing"
