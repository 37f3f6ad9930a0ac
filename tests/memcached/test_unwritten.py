from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from observed import Clock
from pymemcache.client.base import Client
from structlog.testing import capture_logs

from django_safecache.memcached import unwritten
from django_safecache.memcached.unwritten import (
    AGAIN_AFTER,
    LOG_INTERVAL,
    REFUSED_FOR,
    Unwritten,
)
from django_safecache.testing import Faults


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(clock):
    return Unwritten("a:1", clock)


def delete(keys, *confirmed, refused=False):
    """Delete what is due, of which the server confirms this; what was due."""
    due = keys.claim(until=1e9)
    keys.deleted(due, confirmed or list(due), refused=refused)
    return sorted(due)


class TestUnwritten:
    def test_what_was_never_sent_is_deleted_once(self, keys):
        keys.add([b"a", b"b"], sent=False)
        assert delete(keys, b"a") == [b"a", b"b"]
        assert (len(keys), keys.is_due) == (1, True)
        assert delete(keys) == [b"b"]
        assert (len(keys), keys.is_due) == (0, False)

    def test_what_may_have_been_sent_is_deleted_twice(self, keys, clock):
        """A stopped server carries out what it holds when it goes on."""
        keys.add([b"a"], sent=True)
        assert delete(keys) == [b"a"]
        assert (len(keys), keys.is_due) == (1, False)
        assert (b"a" in keys, keys.among([b"a", b"b"])) == (True, {b"a"})
        clock.now += AGAIN_AFTER
        assert keys.is_due
        assert delete(keys) == [b"a"]
        assert (len(keys), keys.is_due) == (0, False)

    def test_a_later_loss_that_was_not_sent_changes_nothing_of_that(self, keys):
        keys.add([b"a"], sent=True)
        keys.add([b"a"], sent=False)
        delete(keys)
        assert len(keys) == 1

    def test_a_key_lost_again_meanwhile_stays(self, keys):
        keys.add([b"a"], sent=False)
        due = keys.claim(until=1e9)
        keys.add([b"a"], sent=False)
        keys.deleted(due, [b"a"], refused=False)
        assert keys.is_due

    def test_one_thread_at_a_time_deletes(self, keys, clock):
        """And one that was ended at it is given up."""
        keys.add([b"a"], sent=False)
        assert keys.claim(until=clock.now + 1) is not None
        assert keys.claim(until=clock.now + 1) is None
        clock.now += 1
        assert keys.claim(until=clock.now + 1) is not None

    def test_a_server_that_refuses_is_believed_after_a_while(self, keys, clock):
        keys.add([b"a", b"b"], sent=False)
        delete(keys, b"a", refused=True)
        clock.now += REFUSED_FOR - 1
        due = keys.claim(until=1e9)
        keys.deleted(due, [], refused=True)
        assert (keys.is_due, keys.forgotten) == (True, 0)
        clock.now += 1
        due = keys.claim(until=1e9)
        keys.deleted(due, [], refused=True)
        assert (keys.is_due, keys.forgotten) == (False, 1)

    def test_the_log_tells_of_it_once_a_minute(self, keys, clock):
        with capture_logs() as logs:
            for _ in range(100):
                keys.add([b"a", b"b"], sent=False)
                delete(keys)
            clock.now += LOG_INTERVAL
            keys.add([b"a"], sent=False)
            delete(keys)
        assert [each["keys"] for each in logs] == [2, 199]

    def test_it_is_bounded_and_says_so(self, keys, monkeypatch):
        monkeypatch.setattr(unwritten, "MAX_UNWRITTEN", 2)
        keys.add([b"a", b"b", b"c"], sent=False)
        keys.add([b"b", b"d"], sent=False)
        assert (delete(keys), keys.forgotten) == ([b"a", b"b"], 2)

    def test_what_finds_no_room_makes_nothing_due(self, keys, clock, monkeypatch):
        monkeypatch.setattr(unwritten, "MAX_UNWRITTEN", 1)
        keys.add([b"a"], sent=True)
        delete(keys)
        keys.add([b"b"], sent=True)
        assert not keys.is_due


@pytest.fixture
def cut_off(local):
    """Cuts the server off, without stopping it, and joins it again."""

    def change(really):
        local.faults = Faults(close_at=0, refuse=True) if really else Faults()

    return change


LOST = {
    "set": lambda cache: cache.set("page", "new"),
    "set_many": lambda cache: cache.set_many({"page": "new", "other": 1}),
    "delete": lambda cache: cache.delete("page"),
    "delete_many": lambda cache: cache.delete_many(["page", "other"]),
    "touch": lambda cache: cache.touch("page", 1),
}
READS = {
    "get": lambda cache: cache.get("page"),
    "get_many": lambda cache: cache.get_many(["page", "x"]).get("page"),
    "has_key": lambda cache: cache.has_key("page") or None,
    "read_many": lambda cache: cache.read_many(["page"]).found.get("page"),
}


def open_connections(memcached):
    client = Client(memcached.address)
    try:
        return int(client.stats()[b"curr_connections"])
    finally:
        client.close()


def end_of_doubt(cache):
    """Lost writes can not be carried out any more: it is late enough."""
    for each in cache._cluster.servers:
        each.unwritten._clock = lambda: 1e9


class TestNoOldValueAfterAnOutage:
    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("write", LOST)
    def test_a_lost_write_is_made_good_before_the_server_answers(
        self, local, make_cache, cut_off, write, read
    ):
        """The server kept the old value all the time; nobody reads it."""
        cache = make_cache(local.address)
        cache.set("page", "old")
        cut_off(True)
        cache.disconnect_all()
        LOST[write](cache)
        status = cache.server_status()[0]
        assert (status.unwritten > 0, status.breaker_open) == (True, True)
        cut_off(False)
        end_of_breaker(cache)
        assert READS[read](cache) is None
        assert cache.server_status()[0].unwritten == 0

    def test_a_server_that_does_not_confirm_it_is_not_read(
        self, local, make_cache, cut_off, recording
    ):
        cache = make_cache(local.address, raise_on_unavailable=[])
        cache.set("page", "old")
        cut_off(True)
        cache.disconnect_all()
        cache.set("page", "new")
        cut_off(False)
        end_of_breaker(cache)
        local.faults = Faults(answer=b"SERVER_ERROR busy", only=b"delete")
        result = cache.read_many(["page", "else"])
        assert (result.found, sorted(result.unavailable)) == ({}, ["else", "page"])
        assert "server_error" in recording.kinds()
        local.faults = Faults()
        assert cache.read_many(["page"]).missing == ["page"]

    def test_a_new_value_written_afterwards_is_read(self, local, make_cache, cut_off):
        cache = make_cache(local.address)
        cut_off(True)
        cache.set("page", "lost")
        cut_off(False)
        end_of_breaker(cache)
        cache.set("page", "new")
        assert cache.get("page") == "new"

    @pytest.mark.parametrize("write", ["set", "set_many"])
    def test_what_was_refused_can_not_come_later(self, local, make_cache, write):
        """The server has answered: what is written afterwards is read."""
        cache = make_cache(local.address)
        local.faults = Faults(answer=b"SERVER_ERROR out of memory", only=b"set")
        getattr(cache, write)(*(["page", "lost"] if write == "set" else [{"page": 1}]))
        local.faults = Faults()
        cache.set("page", "new")
        assert cache.get("page") == "new"

    def test_what_was_refused_after_it_was_asked_again_can(
        self, local, make_cache, recording
    ):
        """The first time may have got through."""
        cache = make_cache(local.address)
        cache.set_many({"page": "old", "other": 1})
        local.faults = Faults(answer=b"SERVER_ERROR out of memory", only=b"set")
        cache.set_many({"page": "lost", "other": 2})
        assert recording.outcomes[-1].retries > 0
        local.faults = Faults()
        assert cache.get_many(["page"]) == {}
        assert cache.server_status()[0].unwritten > 0

    def test_what_its_caller_was_told_of_is_not_remembered(
        self, local, make_cache, cut_off
    ):
        """A lost add or incr."""
        cache = make_cache(local.address)
        cut_off(True)
        assert cache.add("page", 1) is False
        with pytest.raises(ValueError, match="did not answer"):
            cache.incr("page")
        assert cache.server_status()[0].unwritten == 0

    def test_a_stopped_server_that_goes_on_leaves_nothing_old(
        self, own_memcached, make_cache
    ):
        """What lay in its buffers is carried out late; it is deleted again."""
        cache = make_cache(own_memcached.address, timeout=0.1, deadline=0.3)
        patient = make_cache(own_memcached.address, timeout=20, deadline=20)
        patient.set("page", "old")
        connections = open_connections(own_memcached)
        own_memcached.pause()
        try:
            for number in range(3):
                cache.set("page", f"late-{number}")
            cache.set("page", "newest")
        finally:
            own_memcached.resume()
        assert patient.get("page") is None
        while open_connections(own_memcached) > connections:  # with something in them
            time.sleep(0.01)
        assert patient.get("page") is None
        end_of_doubt(cache)
        assert patient.get("page") is None
        assert cache.server_status()[0].unwritten == 0

    @pytest.mark.parametrize("read", READS)
    def test_what_is_carried_out_after_the_delete_is_not_read(
        self, server, make_cache, recording, read
    ):
        """It comes on another connection than the delete, which may overtake it."""
        cache = make_cache(server.address)
        cache.set("else", 1)
        cache._cluster.servers[0].unwritten.add([b":1:page"], sent=True)
        assert READS[read](cache) is None
        make_cache(server.address).set("page", "late")
        recording.outcomes.clear()
        assert READS[read](cache) is None
        (outcome,) = recording.outcomes
        assert (outcome.hits, outcome.misses) == (0, len(outcome.keys))
        assert cache.get_many(["page", "else"]) == {"else": 1}
        end_of_doubt(cache)
        assert READS[read](cache) is None
        cache.set("page", "new")
        assert cache.get("page") == "new"


class TestSharing:
    def test_another_cache_on_the_same_server_knows_of_it(
        self, local, make_cache, cut_off
    ):
        """As of the usual second alias with longer timeouts."""
        cache, other = make_cache(local.address), make_cache(local.address, timeout=5)
        cache.set("page", "old")
        cut_off(True)
        cache.disconnect_all()
        cache.set("page", "new")
        cut_off(False)
        assert other.get("page") is None

    def test_an_outage_with_many_keys_costs_no_call_anything(
        self, local, make_cache, cut_off, recording
    ):
        """While the breaker is open nothing is made for a server that is not asked."""
        cache = make_cache(local.address)
        cut_off(True)
        cache.set_many({f"key-{n}": n for n in range(1000)})
        recording.outcomes.clear()
        assert cache.read_many(["page"]).unavailable == ["page"]
        assert recording.kinds() == ["breaker_open"]
        assert recording.total("lines") == 0

    def test_threads_that_come_when_it_is_back_all_get_answers(
        self, server, make_cache, recording
    ):
        """One of them deletes, the others wait for it; nobody runs into a timeout."""
        cache = make_cache(server.address, timeout=20, deadline=60)
        cache.set("there", 1)
        cache._cluster.servers[0].unwritten.add(
            [b":1:lost-%d" % n for n in range(2000)], sent=False
        )
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda _: cache.get("there"), range(64)))
        assert found == [1] * 64
        assert recording.kinds() == []
        assert cache.server_status()[0].unwritten == 0

    def test_what_deleting_failed_of_is_told(self, local, make_cache, recording):
        cache = make_cache(local.address)
        cache.set("page", 1)
        cache._cluster.servers[0].unwritten.add([b":1:lost"], sent=False)
        local.faults = Faults(reset_at=1, times=1, only=b"delete")
        assert cache.get("page") == 1
        assert recording.kinds() == ["reset"]

    @pytest.mark.parametrize("kept", [True, False], ids=["kept", "new"])
    @pytest.mark.parametrize("write", ["set", "set_many"])
    def test_a_write_that_is_interrupted_is_made_good_twice(
        self, local, make_cache, write, kept
    ):
        """The server may carry it out yet, whatever connection it was sent on."""
        cache = make_cache(local.address, timeout=5, deadline=5)
        cache.set("page", "old")
        if not kept:
            cache.disconnect_all()
        local.faults = Faults(delay=1, only=b"set")

        class Ended(BaseException):
            pass

        def end(*_):
            raise Ended

        previous = signal.signal(signal.SIGALRM, end)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Ended):
                LOST[write](cache)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert cache.get("page") is None
        assert cache.server_status()[0].unwritten > 0

    def test_a_thread_waits_for_another_one_that_deletes_as_long_as_for_a_server(
        self, local, make_cache, recording
    ):
        """And not until the deadline of its call."""
        cache = make_cache(local.address, timeout=0.05, deadline=600)
        (server,) = cache._cluster.servers
        server.unwritten.add([b":1:lost"], sent=False)
        assert server.unwritten.claim(until=1e9)
        assert cache.read_many(["page"]).unavailable == ["page"]
        assert recording.kinds() == ["deadline"]


AT_THE_END = """
from django.conf import settings
settings.configure(CACHES={"default": {
    "BACKEND": "django_safecache.backend.SafeCache", "LOCATION": %r,
}})
from django.core.cache import cache
from django_safecache.testing import outage
with outage("refused"):
    assert cache.delete("page") is False
"""


class TestEndOfAProcess:
    def test_what_it_lost_is_made_good(self, server, make_cache):
        """Nobody else knows of it."""
        cache = make_cache(server.address)
        cache.set("page", "old")
        code = AT_THE_END % server.address
        subprocess.run([sys.executable, "-c", code], check=True)
        assert cache.get("page") is None

    def test_where_it_cannot_be_the_log_says_so(self, local):
        code = AT_THE_END % local.address
        local.stop()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert "event='unwritten_left'" in done.stderr
        assert "keys=1" in done.stderr


def end_of_breaker(cache):
    """As if the breaker's second had passed."""
    for server in cache._cluster.servers:
        server.breaker.reset()
