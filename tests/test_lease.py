"""One process loads what is missing, the others wait for it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from django_safecache.loading import LEASE_PREFIX
from django_safecache.testing import Faults

PROCESSES, THREADS = 4, 25
PATIENT = {"connect_timeout": 20, "timeout": 20, "deadline": 60}

HERD = """
import json, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from django.conf import settings

settings.configure(CACHES={{"default": {{
    "BACKEND": "django_safecache.backend.SafeCache",
    "LOCATION": {address!r},
    "OPTIONS": {options!r},
}}}}, USE_TZ=True)
from django.core.cache import cache

keys, loaded = json.loads({keys!r}), []

def loader(wanted):
    loaded.extend(wanted)
    time.sleep(0.3)
    return {{key: f"value of {{key}}" for key in wanted}}

start = threading.Barrier({threads})

def read(_):
    start.wait()
    found = cache.get_or_load_many(keys, loader, lease=20)
    return found == {{key: f"value of {{key}}" for key in keys}}

print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor({threads}) as pool:
    right = list(pool.map(read, range({threads})))
print(json.dumps({{"right": all(right), "loaded": loaded}}))
"""


class TestHerd:
    def test_100_threads_in_4_processes_load_each_key_at_most_twice(
        self, memcached, campfire_keys
    ):
        """All miss the same 421 keys at once."""
        script = HERD.format(
            address=memcached.address,
            options=PATIENT,
            keys=json.dumps([f"herd/{key}" for key in campfire_keys]),
            threads=THREADS,
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[1],
            )
            for _ in range(PROCESSES)
        ]
        try:
            for process in processes:
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                process.stdin.write("go\n")
                process.stdin.flush()
            results = [
                json.loads(each.communicate(timeout=90)[0]) for each in processes
            ]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert all(result["right"] for result in results)
        loads = Counter(key for result in results for key in result["loaded"])
        assert len(loads) == len(campfire_keys)
        assert max(loads.values()) <= 2


@pytest.fixture
def cache(server, make_cache):
    return make_cache(server.address, **PATIENT)


def load(keys):
    return {key: key.upper() for key in keys if key != "nothing"}


def hold_lease(cache, key):
    """As if another process were loading `key`; its lease key."""
    made = cache._made([key], None)
    lease = LEASE_PREFIX.decode() + _digest(made.keys()[0])
    cache._cluster.store_many("set", [(key, lease.encode(), 1)], 60)
    return lease.encode()


def _digest(made):
    return hashlib.blake2b(made, digest_size=16).hexdigest()


class TestLease:
    def test_without_a_herd_it_is_just_a_load(self, cache):
        assert cache.get_or_load_many(["a", "nothing"], load, lease=10) == {"a": "A"}
        assert cache.get_many(["a", "nothing"]) == {"a": "A"}

    def test_another_process_value_is_waited_for(self, cache):
        lease = hold_lease(cache, "a")
        calls = []

        def other():
            time.sleep(0.2)
            cache.set("a", "theirs")
            cache._cluster.delete_many([("a", lease)])

        thread = threading.Thread(target=other)
        thread.start()
        assert cache.get_or_load_many(["a"], calls.append, lease=20) == {"a": "theirs"}
        thread.join()
        assert calls == []

    def test_a_holder_that_found_nothing_is_not_waited_for_longer(self, cache):
        lease = hold_lease(cache, "a")
        release = threading.Timer(
            0.1, lambda: cache._cluster.delete_many([("a", lease)])
        )
        release.start()
        started = time.monotonic()
        assert cache.get_or_load_many(["a"], load, lease=30) == {"a": "A"}
        assert time.monotonic() - started < 15
        release.join()

    def test_a_holder_that_died_is_waited_for_a_bounded_time(self, cache):
        hold_lease(cache, "a")
        assert cache.get_or_load_many(["a"], load, lease=0.3) == {"a": "A"}

    def test_a_loader_that_raises_gives_the_lease_up(self, cache):
        def broken(keys):
            raise LookupError("no database")

        with pytest.raises(LookupError):
            cache.get_or_load_many(["a"], broken, lease=30)
        started = time.monotonic()
        assert cache.get_or_load_many(["a"], load, lease=30) == {"a": "A"}
        assert time.monotonic() - started < 15

    def test_a_server_that_does_not_answer_leases_nothing(self, local, make_cache):
        """Then every process loads, at once."""
        cache = make_cache(local.address)
        local.faults = Faults(answer=b"SERVER_ERROR busy", only=b"add")
        assert cache.get_or_load_many(["a"], load, lease=30) == {"a": "A"}

    def test_only_its_own_lease_is_given_up(self, cache):
        """A load that took longer than its lease leaves the next holder's alone."""

        def slow(keys):
            time.sleep(1.6)  # an expired lease is taken by another
            lease = hold_lease(cache, "a")
            leases.append(lease)
            return load(keys)

        leases = []
        assert cache.get_or_load_many(["a"], slow, lease=1) == {"a": "A"}
        assert cache._cluster.get(leases[0], "lease").found == {"lease": 1}

    def test_the_chunks_of_a_call_wait_for_a_lease_together(self, local, make_cache):
        cache = make_cache(local.address, loader_chunk_size=1, **PATIENT)
        keys = [f"key-{n}" for n in range(8)]
        for key in keys:
            hold_lease(cache, key)
        started = time.monotonic()
        assert len(cache.get_or_load_many(keys, load, lease=1)) == 8
        assert time.monotonic() - started < 5

    def test_a_loader_that_asks_for_its_own_key_does_not_wait(self, cache):
        def loader(keys):
            return cache.get_or_load_many(keys, load, lease=60)

        assert cache.get_or_load_many(["a"], loader, lease=60) == {"a": "A"}

    def test_a_key_of_250_bytes_can_be_leased(self, cache):
        key = "k" * 247
        assert cache.get_or_load_many([key], load, lease=5) == {key: key.upper()}

    @pytest.mark.parametrize("lease", [0, -1, True, "10", 3601, float("nan")])
    def test_what_is_no_lease_is_refused(self, cache, lease):
        with pytest.raises(ValueError, match="expected seconds, over 0"):
            cache.get_or_load_many(["a"], load, lease=lease)

    def test_threads_of_one_process_share_the_wait(self, cache):
        hold_lease(cache, "a")
        calls = []

        def loader(keys):
            calls.append(keys)
            return load(keys)

        with ThreadPoolExecutor(10) as pool:
            found = list(
                pool.map(
                    lambda _: cache.get_or_load_many(["a"], loader, lease=0.5),
                    range(10),
                )
            )
        assert found == [{"a": "A"}] * 10
        assert calls == [["a"]]
