from __future__ import annotations

import pytest

from django_safecache.testing.store import THIRTY_DAYS, Store

NOW = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return Store(clock=clock)


def value(store: Store, key: bytes = b"a") -> bytes | None:
    item = store.get(key)
    return None if item is None else item.data


class TestExpiry:
    def test_zero_never_expires(self, store, clock):
        store.put("set", b"a", b"1\r\n", exptime=0)
        clock.now += 100 * THIRTY_DAYS
        assert value(store) == b"1\r\n"

    def test_a_negative_time_expires_at_once_and_replaces_the_old_value(self, store):
        store.put("set", b"a", b"1\r\n")
        assert store.put("set", b"a", b"2\r\n", exptime=-1) == "STORED"
        assert value(store) is None

    def test_up_to_thirty_days_is_relative(self, store, clock):
        store.put("set", b"a", b"1\r\n", exptime=THIRTY_DAYS)
        clock.now += THIRTY_DAYS - 1
        assert value(store) == b"1\r\n"
        clock.now += 1
        assert value(store) is None

    def test_above_thirty_days_is_absolute(self, store, clock):
        store.put("set", b"past", b"1\r\n", exptime=THIRTY_DAYS + 1)
        store.put("set", b"future", b"1\r\n", exptime=int(NOW) + 10)
        assert value(store, b"past") is None
        clock.now += 9
        assert value(store, b"future") == b"1\r\n"
        clock.now += 1
        assert value(store, b"future") is None

    def test_touch_gives_another_life(self, store, clock):
        store.put("set", b"a", b"1\r\n", exptime=1)
        assert store.touch(b"a", 10) is not None
        clock.now += 9
        assert value(store) == b"1\r\n"
        clock.now += 1
        assert store.touch(b"a", 10) is None

    def test_appending_keeps_flags_and_expiry_of_the_old_item(self, store, clock):
        store.put("set", b"a", b"1\r\n", flags=7, exptime=1)
        store.put("append", b"a", b"2\r\n", flags=9, exptime=100)
        assert store.get(b"a").flags == 7
        clock.now += 1
        assert value(store) is None

    def test_counting_keeps_the_expiry(self, store, clock):
        store.put("set", b"a", b"1\r\n", exptime=1)
        store.delta("incr", b"a", 1)
        clock.now += 1
        assert store.delta("incr", b"a", 1) is None


class TestFlush:
    def test_a_delayed_flush_takes_what_was_stored_before_its_time(self, store, clock):
        store.flush(10)
        store.put("set", b"a", b"1\r\n")
        assert value(store) == b"1\r\n"
        clock.now += 10.5
        assert value(store) is None
        store.put("set", b"a", b"2\r\n")
        assert value(store) == b"2\r\n"

    def test_a_flush_replaces_a_delayed_one(self, store, clock):
        store.flush(10)
        store.flush()
        store.put("set", b"a", b"1\r\n")
        clock.now += 20
        assert value(store) == b"1\r\n"

    def test_a_negative_delay_is_none(self, store):
        store.put("set", b"a", b"1\r\n")
        store.flush(-5)
        assert (len(store), store.bytes) == (0, 0)

    def test_an_absolute_time_before_all_items_flushes_nothing(self, store):
        store.put("set", b"a", b"1\r\n")
        store.flush(THIRTY_DAYS + 1)
        assert value(store) == b"1\r\n"


class TestBudget:
    def test_the_largest_value_is_memcacheds(self, store):
        """1,048,516 bytes for a 1-byte key, 1,048,267 for one of 250 bytes."""
        too_large = "SERVER_ERROR object too large for cache"
        assert store.refusal(b"k", 0, 1_048_516) is None
        assert store.refusal(b"k", 0, 1_048_517) == too_large
        assert store.refusal(b"k" * 250, 0, 1_048_267) is None
        assert store.refusal(b"k" * 250, 0, 1_048_268) == too_large

    def test_flags_take_four_bytes(self, store):
        assert store.refusal(b"k", 5, 1_048_512) is None
        assert store.refusal(b"k", 5, 1_048_513) is not None

    def test_an_item_larger_than_all_memory_is_refused(self):
        store = Store(limit_maxbytes=100)
        words = "SERVER_ERROR out of memory storing object"
        assert store.refusal(b"k", 0, 100) == words

    def test_the_least_recently_used_are_evicted_and_counted(self):
        store = Store(limit_maxbytes=200)  # each item takes 61
        for key in (b"a", b"b", b"c"):
            store.put("set", key, b"1\r\n")
        store.get(b"a")
        store.put("set", b"d", b"1\r\n")
        assert [value(store, key) for key in (b"a", b"b", b"c", b"d")] == [
            b"1\r\n",
            None,
            b"1\r\n",
            b"1\r\n",
        ]
        assert (store.stats["evictions"], store.bytes) == (1, 3 * 61)

    def test_dropping_an_expired_item_is_no_eviction(self, clock):
        store = Store(limit_maxbytes=130, clock=clock)
        store.put("set", b"a", b"1\r\n", exptime=1)
        clock.now += 2
        store.put("set", b"b", b"1\r\n")
        store.put("set", b"c", b"1\r\n")
        assert (store.stats["evictions"], store.stats["reclaimed"]) == (0, 1)

    def test_memory_stays_within_the_limit_whatever_is_stored(self):
        store = Store(limit_maxbytes=10_000)
        for number in range(1000):
            store.put("set", b"%d" % (number % 70), b"x" * (number % 900) + b"\r\n")
            assert store.bytes <= 10_000

    def test_appending_beyond_the_item_limit_stores_nothing(self, store):
        half = b"x" * 600_000 + b"\r\n"
        store.put("set", b"a", half)
        assert store.put("append", b"a", half) == "NOT_STORED"
        assert value(store) == half

    def test_bytes_return_to_zero_when_all_is_deleted(self, store):
        store.put("set", b"a", b"1\r\n", flags=3)
        store.put("append", b"a", b"2\r\n")
        store.delta("incr", b"a", 999)
        store.delete(b"a")
        assert (len(store), store.bytes) == (0, 0)


class TestStoring:
    def test_cas_stores_only_over_the_item_it_was_given_for(self, store):
        store.put("set", b"a", b"1\r\n")
        cas = store.get(b"a").cas
        assert store.put("cas", b"a", b"2\r\n", cas=cas) == "STORED"
        assert store.put("cas", b"a", b"3\r\n", cas=cas) == "EXISTS"
        assert store.put("cas", b"b", b"3\r\n", cas=cas) == "NOT_FOUND"
        assert value(store) == b"2\r\n"

    @pytest.mark.parametrize("change", ["set", "append", "incr"])
    def test_every_change_gives_a_new_cas(self, store, change):
        store.put("set", b"a", b"1\r\n")
        cas = store.get(b"a").cas
        if change == "incr":
            store.delta("incr", b"a", 1)
        else:
            store.put(change, b"a", b"1\r\n")
        assert store.get(b"a").cas > cas

    def test_touch_keeps_the_cas(self, store):
        store.put("set", b"a", b"1\r\n")
        cas = store.get(b"a").cas
        store.touch(b"a", 10)
        assert store.get(b"a").cas == cas


class TestDelta:
    def test_incr_wraps_at_64_bits(self, store):
        store.put("set", b"a", b"18446744073709551615\r\n")
        assert store.delta("incr", b"a", 2) == b"1"

    def test_decr_stops_at_zero(self, store):
        store.put("set", b"a", b"10\r\n")
        assert store.delta("decr", b"a", 11) == b"0"

    def test_a_shorter_number_keeps_the_length_with_spaces(self, store):
        store.put("set", b"a", b"10\r\n")
        store.delta("decr", b"a", 1)
        assert value(store) == b"9 \r\n"

    def test_a_longer_number_takes_the_length_it_needs(self, store):
        store.put("set", b"a", b"99\r\n")
        store.delta("incr", b"a", 1)
        assert value(store) == b"100\r\n"

    def test_what_is_not_a_number_raises_and_stays(self, store):
        store.put("set", b"a", b"x\r\n")
        message = "cannot increment or decrement non-numeric value"
        with pytest.raises(ValueError, match=f"^{message}$"):
            store.delta("incr", b"a", 1)
        assert value(store) == b"x\r\n"


class TestStats:
    def test_hits_and_misses_are_counted_per_key(self, store):
        store.put("set", b"a", b"1\r\n")
        for key in (b"a", b"a", b"b"):
            store.get(key)
        stats = store.stats
        assert (stats["cmd_get"], stats["get_hits"], stats["get_misses"]) == (3, 2, 1)
