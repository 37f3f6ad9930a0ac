from __future__ import annotations

import pytest

from django_safecache.memcached import unwritten
from django_safecache.memcached.unwritten import AGAIN_AFTER, Unwritten
from django_safecache.testing import Faults


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys(clock):
    return Unwritten("a:1", clock)


class TestUnwritten:
    def test_what_was_never_sent_is_deleted_once(self, keys):
        keys.add([b"a", b"b"], sent=False)
        due = keys.due()
        assert sorted(due) == [b"a", b"b"]
        keys.deleted([b"a"], due)
        assert (len(keys), keys.is_due, list(keys.due())) == (1, True, [b"b"])

    def test_what_may_have_been_sent_is_deleted_twice(self, keys, clock):
        """A stopped server carries out what it holds when it goes on."""
        keys.add([b"a"], sent=True)
        keys.deleted([b"a"], keys.due())
        assert (len(keys), keys.is_due) == (1, False)
        clock.now += AGAIN_AFTER
        assert keys.is_due
        keys.deleted([b"a"], keys.due())
        assert (len(keys), keys.is_due) == (0, False)

    def test_a_key_lost_again_meanwhile_stays(self, keys):
        keys.add([b"a"], sent=False)
        due = keys.due()
        keys.add([b"a"], sent=False)
        keys.deleted([b"a"], due)
        assert keys.is_due

    def test_it_is_bounded_and_says_so(self, keys, monkeypatch):
        monkeypatch.setattr(unwritten, "MAX_UNWRITTEN", 2)
        keys.add([b"a", b"b", b"c"], sent=False)
        keys.add([b"b", b"d"], sent=False)
        assert (sorted(keys.due()), keys.forgotten) == ([b"a", b"b"], 2)


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
        cache.set("page", "old")
        own_memcached.pause()
        try:
            for number in range(3):
                cache.set("page", f"late-{number}")
            cache.set("page", "newest")
        finally:
            own_memcached.resume()
        end_of_breaker(cache)
        assert cache.get("page") is None
        for each in cache._cluster.servers:
            each.unwritten._clock = lambda: 1e9
        assert cache.get("page") is None
        assert cache.server_status()[0].unwritten == 0


def end_of_breaker(cache):
    """As if the breaker's second had passed."""
    for server in cache._cluster.servers:
        server.breaker.reset()
