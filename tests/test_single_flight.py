"""Threads that want the same keys share one load."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from traceback import walk_stack

import pytest

from django_safecache.single_flight import Flights

NOBODY = "127.0.0.1:1"
THREADS = 50


class Slow:
    """A loader that takes its time, and remembers what it was asked for."""

    def __init__(self, values=str.upper):
        self.asked = []
        self.goes_on = threading.Event()
        self.was_called = threading.Event()
        self._values = values

    def __call__(self, keys):
        self.asked.append(list(keys))
        self.was_called.set()
        assert self.goes_on.wait(20)
        return {key: self._values(key) for key in keys}


class OneWay(Exception):
    """It can be pickled, but not read again."""

    def __init__(self, one, other):
        super().__init__(one)


def in_threads(count, call):
    """What `call` gives in `count` threads at once, or raises there."""
    pool = ThreadPoolExecutor(count)
    return pool, [pool.submit(call) for _ in range(count)]


def everybody_waits(futures):
    """Wait until all that are not done wait for a load, their own or another's."""
    until = time.monotonic() + 20
    while waiting() < sum(not future.done() for future in futures):
        assert time.monotonic() < until
        time.sleep(0.01)


def waiting():
    """How many threads are within a load and wait."""
    innermost = sys._current_frames().values()
    return sum(
        frame.f_code is threading.Condition.wait.__code__
        and any(outer.f_code is Flights.load.__code__ for outer, _ in walk_stack(frame))
        for frame in innermost
    )


def let(loader, futures):
    """Let the loader go on once everybody waits for it; the results."""
    everybody_waits(futures)
    loader.goes_on.set()
    return [future.result(20) for future in futures]


@pytest.fixture
def dead(make_cache):
    """A cache that nobody answers for, and knows it."""
    cache = make_cache(NOBODY)
    cache.read_many(["x"])
    return cache


class TestSharing:
    def test_50_threads_with_a_dead_cache_make_two_loads(self, dead, campfire_keys):
        """One by the first, and one for all that come while that is under way: what it
        has read already may have been changed before they came."""
        loader = Slow()
        pool, futures = in_threads(
            THREADS, lambda: dead.get_many(campfire_keys, loader=loader)
        )
        with pool:
            results = let(loader, futures)
        expected = {key: key.upper() for key in campfire_keys}
        assert all(result == expected for result in results)
        assert loader.asked == [campfire_keys] * 2

    def test_threads_that_come_before_it_begins_share_it(self):
        """They waited for the same dead server, say."""
        flights, loader = Flights(), Slow()
        came = time.monotonic()
        pool, futures = in_threads(
            THREADS, lambda: flights.load("loader", {"a": 1}, loader, came)
        )
        with pool:
            assert let(loader, futures) == [{"a": "A"}] * THREADS
        assert loader.asked == [["a"]]

    def test_nothing_older_than_the_call_is_given(self, dead):
        """Another process changes the database while a load is under way, and its
        delete is answered: who asks then gets the new value."""
        database, read = {"k": "old"}, threading.Event()
        goes_on = threading.Event()

        def loader(keys):
            found = {key: database[key] for key in keys}
            read.set()
            assert goes_on.wait(20)
            return found

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(dead.get_many, ["k"], loader=loader)
            assert read.wait(20)
            database["k"] = "new"
            second = pool.submit(dead.get_many, ["k"], loader=loader)
            everybody_waits([first, second])
            goes_on.set()
            assert (first.result(20), second.result(20)) == ({"k": "old"}, {"k": "new"})

    def test_a_cold_cache_is_loaded_twice_and_written_once(
        self, server, make_cache, recording
    ):
        cache = make_cache(server.address, timeout=20, deadline=60)
        loader = Slow()
        pool, futures = in_threads(
            20, lambda: cache.get_or_load_many(["a", "b"], loader)
        )
        with pool:
            assert let(loader, futures) == [{"a": "A", "b": "B"}] * 20
        assert loader.asked == [["a", "b"]] * 2
        assert cache.get_many(["a", "b"]) == {"a": "A", "b": "B"}
        assert sum(o.stored for o in recording.outcomes) == 2

    def test_only_what_is_loaded_already_is_waited_for(self, dead):
        loader = Slow()
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(dead.get_many, ["a", "b"], loader=loader)]
            assert loader.was_called.wait(20)
            futures.append(pool.submit(dead.get_many, ["b", "c"], loader=loader))
            assert let(loader, futures) == [
                {"a": "A", "b": "B"},
                {"b": "B", "c": "C"},
            ]
        assert loader.asked == [["a", "b"], ["c"], ["b"]]

    def test_nobody_gets_anothers_object(self, dead):
        """What is taken from a cache is one's own, to be changed at will."""
        loader = Slow(lambda key: [key])
        pool, futures = in_threads(3, lambda: dead.get_many(["a"], loader=loader))
        with pool:
            results = let(loader, futures)
        assert results == [{"a": ["a"]}] * 3
        assert len({id(result["a"]) for result in results}) == 3

    def test_what_cannot_be_copied_is_loaded_by_each(self, dead):
        loader = Slow(lambda key: threading.Lock())
        pool, futures = in_threads(3, lambda: dead.get_many(["a"], loader=loader))
        with pool:
            results = let(loader, futures)
        assert len({id(result["a"]) for result in results}) == 3
        assert loader.asked == [["a"]] * 3

    def test_its_exception_is_everybodys(self, dead):
        """A database that fails is not asked by each of them."""

        def broken(key):
            raise LookupError("no database")

        loader = Slow(broken)
        pool, futures = in_threads(5, lambda: dead.get_many(["a"], loader=loader))
        with pool:
            everybody_waits(futures)
            loader.goes_on.set()
            errors = [future.exception(20) for future in futures]
        assert [repr(error) for error in errors] == ["LookupError('no database')"] * 5
        assert len(loader.asked) == 2

    def test_an_exception_for_anothers_key_is_not_everybodys(self, dead):
        """One asks for a malformed key besides: the others' pages are whole."""
        loader = Slow(lambda key: int(key))
        with ThreadPoolExecutor(2) as pool:
            bad = pool.submit(dead.get_many, ["1", "evil"], loader=loader)
            assert loader.was_called.wait(20)
            good = pool.submit(dead.get_many, ["1"], loader=loader)
            everybody_waits([bad, good])
            loader.goes_on.set()
            assert isinstance(bad.exception(20), ValueError)
            assert good.result(20) == {"1": 1}

    def test_each_raises_an_exception_of_its_own(self):
        """Of one object all threads would write the traceback."""
        flights, loader = Flights(), Slow(lambda key: int(key))
        pool, futures = in_threads(
            5, lambda: flights.load("loader", {"x": 1}, loader, 0)
        )
        with pool:
            everybody_waits(futures)
            loader.goes_on.set()
            errors = [future.exception(20) for future in futures]
        assert len({id(error) for error in errors}) == 5
        assert len({str(error) for error in errors}) == 1

    def test_a_slow_load_is_not_repeated_by_all_who_wait(self):
        """After a time one loads itself, after twice that two more, and so on."""
        flights, calls = Flights(), []

        def slow(keys):
            calls.append(keys)
            time.sleep(1.2)
            return dict.fromkeys(keys, 1)

        pool, futures = in_threads(
            20, lambda: flights.load("loader", {"x": 1}, slow, 0, patience=0.5)
        )
        with pool:
            assert [future.result(20) for future in futures] == [{"x": 1}] * 20
        assert len(calls) <= 4

    def test_what_cannot_be_read_again_is_loaded_by_each(self, dead):
        loader = Slow(lambda key: OneWay("x", "y"))
        pool, futures = in_threads(3, lambda: dead.get_many(["a"], loader=loader))
        with pool:
            results = let(loader, futures)
        assert [type(result["a"]) for result in results] == [OneWay] * 3

    def test_a_loader_needs_no_hash_and_may_be_empty(self, dead):
        class Loader(dict):
            """A dictionary, which has neither."""

            def __call__(self, keys):
                return dict.fromkeys(keys, "loaded")

        assert dead.get_many(["a"], loader=Loader()) == {"a": "loaded"}

    def test_the_next_load_is_a_new_one(self, dead):
        calls = []

        def loader(keys):
            calls.append(keys)
            return dict.fromkeys(keys, len(calls))

        assert dead.get_many(["a"], loader=loader) == {"a": 1}
        assert dead.get_many(["a"], loader=loader) == {"a": 2}


class TestKeysApart:
    """What two threads call alike is not always the same."""

    @pytest.mark.parametrize(
        "other",
        [
            {"version": 2},
            {"KEY_PREFIX": "other"},
        ],
        ids=["version", "prefix"],
    )
    def test_of_another_version_or_prefix(self, make_cache, other):
        version = other.pop("version", 1)
        caches = [make_cache(NOBODY), make_cache(NOBODY, params=other)]
        loader = Slow()
        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(caches[0].get_many, ["a"], loader=loader),
                pool.submit(caches[1].get_many, ["a"], version, loader=loader),
            ]
            let(loader, futures)
        assert loader.asked == [["a"], ["a"]]

    def test_of_another_tenant(self, make_cache):
        """A key function that looks at the thread, as those of tenants do."""
        tenant = threading.local()

        def key_of_tenant(key, prefix, version):
            return f"{tenant.name}:{key}"

        cache = make_cache(NOBODY, params={"KEY_FUNCTION": key_of_tenant})
        loader = Slow(lambda key: tenant.name)

        def read(name):
            tenant.name = name
            return cache.get_many(["secret"], loader=loader)

        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(read, name) for name in ("us", "them")]
            results = let(loader, futures)
        assert results == [{"secret": "us"}, {"secret": "them"}]


class TestWrites:
    @pytest.mark.parametrize(
        "write",
        [
            lambda cache: cache.set("a", "new"),
            lambda cache: cache.set_many({"a": "new"}),
            lambda cache: cache.delete("a"),
            lambda cache: cache.delete_many(["a"]),
            lambda cache: cache.clear(),
        ],
        ids=["set", "set_many", "delete", "delete_many", "clear"],
    )
    def test_what_is_written_meanwhile_is_not_written_back(
        self, server, make_cache, write
    ):
        """It may have been read before the change."""
        cache = make_cache(server.address, timeout=20, deadline=60)
        loader = Slow()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(cache.get_or_load_many, ["a", "b"], loader)
            assert loader.was_called.wait(20)
            write(cache)
            let(loader, [future])
        assert cache.get("a") in (None, "new")

    def test_what_was_deleted_meanwhile_is_not_written_back(self, server, make_cache):
        cache = make_cache(server.address, timeout=20, deadline=60)
        loader = Slow()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(cache.get_or_load_many, ["a", "b"], loader)
            assert loader.was_called.wait(20)
            cache.delete("a")
            assert let(loader, [future]) == [{"a": "A", "b": "B"}]
        assert cache.get_many(["a", "b"]) == {"b": "B"}


class TestNoDeadlock:
    def test_a_load_within_a_load_waits_for_nobody(self, dead):
        """Two that would wait for each other both load."""
        both = threading.Barrier(2, timeout=20)

        def loader_a(keys):
            both.wait()
            return {**dead.get_many(["b"], loader=loader_b), "a": "A"}

        def loader_b(keys):
            if not both.broken and threading.current_thread().name == "b":
                both.wait()
                dead.get_many(["a"], loader=lambda keys: {"a": "A"})
            return {"b": "B"}

        results = {}

        def run(name, loader):
            results[name] = dead.get_many([name], loader=loader)

        threads = [
            threading.Thread(target=run, args=("a", loader_a), name="a", daemon=True),
            threading.Thread(target=run, args=("b", loader_b), name="b", daemon=True),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(4)
            assert not thread.is_alive()
        assert results == {"a": {"a": "A"}, "b": {"b": "B"}}

    def test_one_that_takes_too_long_is_not_waited_for(self):
        flights, loader = Flights(), Slow()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(flights.load, "loader", {"a": 1}, loader, 0)
            assert loader.was_called.wait(20)
            given = flights.load(
                "loader", {"a": 1}, lambda keys: {"a": "own"}, 0, patience=0.1
            )
            assert given == {"a": "own"}
            loader.goes_on.set()
            assert future.result(20) == {"a": "A"}

    def test_one_whose_thread_was_ended_is_loaded_by_those_who_waited(self):
        class Ended(BaseException):
            pass

        def ends(key):
            raise Ended

        flights, loader = Flights(), Slow(ends)
        with ThreadPoolExecutor(2) as pool:
            ended = pool.submit(flights.load, "loader", {"a": 1}, loader, 0)
            assert loader.was_called.wait(20)
            other = pool.submit(
                flights.load, "loader", {"a": 1}, lambda keys: {"a": "own"}, 0
            )
            time.sleep(0.1)
            loader.goes_on.set()
            assert other.result(20) == {"a": "own"}
            assert isinstance(ended.exception(20), Ended)
        assert (flights._under_way, flights._to_come) == ({}, {})
