"""Calls far larger than any buffer: no deadlock, exact results, bounded memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import tracemalloc

import pytest
from cache_server import end, free_port, wait_for_port
from socket_modules import SmallBuffers

from django_safecache.memcached.cluster import Cluster
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import parse_address
from django_safecache.testing import LocalMemcached

PATIENT = {"connect_timeout": 10, "timeout": 30, "deadline": 120}
MILLION = 1_000_000
MEGABYTE = 1_000_000
"""As much of memcached's own limit of an item, 1 MiB, as is sure to fit."""


@pytest.fixture
def roomy_memcached(memcached):
    """The real one with room for 50 values of 1 MB; its own 64 MB are too tight."""
    port = free_port()
    command = [*memcached._command, "-m", "512", "-p", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    wait_for_port(f"127.0.0.1:{port}", process)
    yield f"127.0.0.1:{port}"
    end(process)


@contextlib.contextmanager
def memory():
    """How much more was allocated at the peak than at the beginning: ``[bytes]``."""
    peak = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


def size_of(values):
    return sum(map(sys.getsizeof, values))


class TestAMillionKeys:
    @pytest.fixture
    def keys(self):
        return [f"transcript/{n}" for n in range(MILLION)]

    def test_one_call_gets_exactly_what_is_there(
        self, memcached, make_cache, keys, recording
    ):
        """A thousand are there. Every key is a hit or a miss, and none is in doubt."""
        cache = make_cache(memcached.address, **PATIENT)
        there = {key: f"value of {key}" for key in keys[::1000]}
        assert cache.set_many(there) == []
        recording.outcomes.clear()
        assert cache.get_many(keys) == there
        assert recording.kinds() == []
        assert recording.total("hits") == 1000
        assert recording.total("hits") + recording.total("misses") == MILLION
        assert recording.total("unavailable") == 0

    def test_over_three_servers(self, memcached, make_cache, keys, recording):
        """Some of which answer much more slowly than others."""
        with LocalMemcached() as second, LocalMemcached() as third:
            addresses = [memcached.address, second.address, third.address]
            cache = make_cache(addresses, **PATIENT)
            some = keys[:60_000]
            there = {key: f"value of {key}" for key in some[::7]}
            assert cache.set_many(there) == []
            recording.outcomes.clear()
            assert cache.get_many(some) == there
            cache.disconnect_all()
        assert len({outcome.server for outcome in recording.outcomes}) == 3
        assert recording.total("hits") == len(there)
        assert recording.total("hits") + recording.total("misses") == 60_000

    @pytest.mark.parametrize("count", [50_000, 400_000])
    def test_memory_is_a_few_times_the_keys(self, memcached, make_cache, keys, count):
        """The made keys and their index, which are needed to tell keys from answers,
        and nothing of what goes over the network: 170 bytes a key were measured, three
        times what the keys themselves take, at any number of them."""
        cache = make_cache(memcached.address, **PATIENT)
        some = keys[:count]
        cache.get("connected")
        with memory() as peak:
            assert cache.get_many(some) == {}
        assert peak[0] < 5 * size_of(some) + MEGABYTE

    def test_all_of_them_found_cost_the_result_besides(
        self, memcached, make_cache, keys
    ):
        cache = make_cache(memcached.address, **PATIENT)
        there = dict.fromkeys(keys[:50_000], "v" * 200)
        assert cache.set_many(there) == []
        with memory() as peak:
            found = cache.get_many(there)
        assert found == there
        # A value is held as received and as decoded until its server has answered.
        result = sys.getsizeof(found) + 2 * size_of(found.values())
        assert peak[0] < 5 * size_of(there) + result + 8 * MEGABYTE


class TestMegabytes:
    @pytest.fixture
    def values(self):
        return {f"large-{n}": bytes([n]) * MEGABYTE for n in range(50)}

    @pytest.fixture(params=["memcached", "local"])
    def address(self, request):
        if request.param == "memcached":
            yield request.getfixturevalue("roomy_memcached")
            return
        with LocalMemcached(limit_maxbytes=1 << 29) as server:
            yield server.address

    def test_50_of_them_are_written_and_read(self, address, make_cache, values):
        cache = make_cache(address, **PATIENT)
        assert cache.set_many(values) == []
        assert cache.get_many(values) == values

    def test_reading_takes_the_result_and_three_values(
        self, roomy_memcached, make_cache, values
    ):
        """One value is in pieces, joined and cut out; the others are there once."""
        cache = make_cache(roomy_memcached, **PATIENT)
        assert cache.set_many(values) == []
        with memory() as peak:
            found = cache.get_many(values)
        assert peak[0] < size_of(found.values()) + 6 * MEGABYTE

    def test_writing_takes_the_commands_and_a_window(
        self, roomy_memcached, make_cache, values
    ):
        """Everything is encoded before anything is sent, so that what cannot be
        encoded stops the call and not a half of it."""
        cache = make_cache(roomy_memcached, **PATIENT)
        with memory() as peak:
            assert cache.set_many(values) == []
        assert peak[0] < size_of(values.values()) + 6 * MEGABYTE

    def test_a_value_of_64_megabytes_is_refused_and_the_others_are_stored(
        self, address, make_cache
    ):
        cache = make_cache(address, **PATIENT)
        values = {"a": b"1", "b": b"2" * (64 * MEGABYTE), "c": b"3"}
        assert cache.set_many(values) == ["b"]
        assert cache.get_many(values) == {"a": b"1", "c": b"3"}


class TestSmallBuffers:
    """More bytes each way than both kernels hold: who writes all before reading hangs.

    Whatever the window: 1 lets one line be unanswered, 4 MiB never closes.
    """

    COUNT = 6000

    @pytest.fixture(params=[1, 65536, 1 << 22], ids=["one-line", "default", "all"])
    def window(self, request):
        return request.param

    @pytest.fixture
    def cluster(self, server, window, recording):
        options = {"socket_module": SmallBuffers(), "window_bytes": window, **PATIENT}
        cluster = Cluster(
            "small", [parse_address(server.address)], Options.parse(options), recording
        )
        yield cluster
        cluster.close()

    @pytest.fixture
    def keys(self, window):
        """By made key. One line at a time is a round trip each: fewer of those."""
        count = self.COUNT // 10 if window == 1 else self.COUNT
        return {b"key-%05d-%s" % (n, b"k" * 200): n for n in range(count)}

    def store(self, cluster, keys, value):
        items = [(label, key, value) for key, label in keys.items()]
        return cluster.store_many("set", items, 0)

    def test_get_many(self, cluster, keys, recording):
        """6,000 keys of 210 bytes, and 12 MB of values."""
        assert len(self.store(cluster, keys, b"v" * 2000).answers) == len(keys)
        values = cluster.get_many(keys)
        assert values.found == dict.fromkeys(keys.values(), b"v" * 2000)
        assert recording.kinds() == []

    def test_store_many(self, cluster, keys, recording):
        statuses = self.store(cluster, keys, b"v" * 500)
        assert statuses.answers == dict.fromkeys(keys.values(), b"STORED")
        assert (statuses.lost, recording.kinds()) == ([], [])

    def test_delete_many(self, cluster, keys, recording):
        self.store(cluster, keys, b"")
        statuses = cluster.delete_many([(label, key) for key, label in keys.items()])
        assert statuses.answers == dict.fromkeys(keys.values(), b"DELETED")
        statuses = cluster.delete_many([(label, key) for key, label in keys.items()])
        assert statuses.answers == dict.fromkeys(keys.values(), b"NOT_FOUND")
        assert recording.kinds() == []

    def test_touch_many(self, cluster, keys, recording):
        self.store(cluster, keys, b"")
        items = [(label, key) for key, label in keys.items()]
        statuses = cluster.touch_many(items, 100)
        assert statuses.answers == dict.fromkeys(keys.values(), b"TOUCHED")
        assert recording.kinds() == []

    def test_a_megabyte_through_16_kb(self, cluster, recording):
        value = os.urandom(MEGABYTE)
        started = time.monotonic()
        statuses = cluster.store_many("set", [("a", b"a", value)], 0)
        assert statuses.answers == {"a": b"STORED"}
        assert cluster.get_many({b"a": "a", b"b": "b"}).found == {"a": value}
        assert recording.kinds() == []
        assert time.monotonic() - started < PATIENT["timeout"]
