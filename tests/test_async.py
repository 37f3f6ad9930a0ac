"""The async calls: one thread hop for a whole batch, and none of Django's own thread
while the network is waited for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import (
    SyncToAsync,
    ThreadSensitiveContext,
    async_to_sync,
    sync_to_async,
)
from django.core.cache import caches

from django_safecache.backend import SafeCache
from django_safecache.loaders import registry
from django_safecache.testing import Faults

PATIENT = {"connect_timeout": 20, "timeout": 20, "deadline": 60}
NOBODY = "127.0.0.1:1"


class CountingExecutor(ThreadPoolExecutor):
    """An executor that counts what it is given: hops into one of its threads."""

    hops = 0

    def submit(self, *args, **kwargs):
        self.hops += 1
        return super().submit(*args, **kwargs)


class Hops:
    """The two executors that asgiref hands work to, both counting."""

    def __init__(self, free, sensitive):
        self._free = free
        self._sensitive = sensitive

    def run(self, coroutine):
        """Run `coroutine` in a loop whose threads are counted.

        Returns its result, the hops into any thread, and those into Django's one.
        """

        async def main():
            asyncio.get_running_loop().set_default_executor(self._free)
            return await coroutine

        free, sensitive = self._free.hops, self._sensitive.hops
        result = asyncio.run(main())
        return result, self._free.hops - free, self._sensitive.hops - sensitive


@pytest.fixture
def make_hops(monkeypatch):
    """`Hops`, once for each event loop, which shuts its executor down at its end."""
    with CountingExecutor(max_workers=1) as sensitive:
        # asgiref's, not ours: the thread for everything that is thread-sensitive.
        monkeypatch.setattr(SyncToAsync, "single_thread_executor", sensitive)
        yield lambda: Hops(CountingExecutor(max_workers=8), sensitive)


@pytest.fixture
def run(make_hops):
    return lambda coroutine: make_hops().run(coroutine)


@pytest.fixture
def cache(local, make_cache):
    return make_cache(local.address, **PATIENT)


async def is_asked(local):
    """Return when a request has arrived, and its answer is due."""
    while not local.lines:
        await asyncio.sleep(0.005)


def load(keys):
    return {key: f"loaded-{key}" for key in keys}


class Lazy:
    """Becomes the number of the thread that pickles it."""

    def __reduce__(self):
        return int, (threading.get_ident(),)


@pytest.fixture
def with_loader():
    """Registers a loader for keys that begin with ``async/``."""
    yield lambda loader: registry.register("async/", loader)
    registry.unregister("async/")


@pytest.mark.parametrize("count", [1, 421])
class TestHops:
    """As many thread hops for 421 keys as for one."""

    @pytest.fixture
    def keys(self, campfire_keys, count):
        return campfire_keys[:count]

    def test_aget_many_is_one(self, cache, run, keys):
        cache.set_many(dict.fromkeys(keys, "v"))
        assert run(cache.aget_many(keys)) == (dict.fromkeys(keys, "v"), 1, 0)

    def test_aread_many_is_one(self, cache, run, keys):
        result, free, sensitive = run(cache.aread_many(keys))
        assert (result.missing, free, sensitive) == (keys, 1, 0)

    def test_aset_many_is_one(self, cache, run, keys):
        assert run(cache.aset_many(dict.fromkeys(keys, "v"))) == ([], 1, 0)
        assert cache.get_many(keys) == dict.fromkeys(keys, "v")

    def test_adelete_many_is_one(self, cache, run, keys):
        cache.set_many(dict.fromkeys(keys, "v"))
        assert run(cache.adelete_many(keys)) == (None, 1, 0)
        assert cache.get_many(keys) == {}

    def test_aget_or_load_many_is_one_if_nothing_is_missing(self, cache, run, keys):
        cache.set_many(dict.fromkeys(keys, "v"))
        result = run(cache.aget_or_load_many(keys, load))
        assert result == (dict.fromkeys(keys, "v"), 1, 0)

    def test_aget_or_load_many_reads_loads_and_writes_back(self, cache, run, keys):
        """Only the load takes Django's thread."""
        assert run(cache.aget_or_load_many(keys, load)) == (load(keys), 1, 1)
        assert cache.get_many(keys) == load(keys)

    def test_aget_many_of_what_nobody_answers_loads_once(self, run, make_cache, keys):
        cache = make_cache(NOBODY, **PATIENT)
        assert run(cache.aget_many(keys, loader=load)) == (load(keys), 1, 1)


class TestDjangosThread:
    """The one thread for the ORM is not held by those who wait for memcached."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda cache: cache.aget_many(["a", "b"]),
            lambda cache: cache.aread_many(["a", "b"]),
            lambda cache: cache.aset_many({"a": 1, "b": 2}),
            lambda cache: cache.adelete_many(["a", "b"]),
            lambda cache: cache.aget_or_load_many(["a", "b"], load),
            lambda cache: cache.aget("a"),
            lambda cache: cache.aset("a", 2),
            lambda cache: cache.aadd("a", 2),
            lambda cache: cache.atouch("a"),
            lambda cache: cache.adelete("a"),
            lambda cache: cache.aincr("a"),
            lambda cache: cache.ahas_key("a"),
            lambda cache: cache.aclear(),
        ],
    )
    def test_it_is_free_while_the_network_is_waited_for(self, cache, local, call):
        """A query of another task is done while memcached has not answered yet."""

        async def main():
            waiting = asyncio.create_task(call(cache))
            await asyncio.wait_for(is_asked(local), 20)
            answer = await sync_to_async(lambda: "a row", thread_sensitive=True)()
            was_waiting = not waiting.done()
            local.faults = Faults()
            await waiting
            return answer, was_waiting

        cache.set("a", 1)  # so that it is connected
        local.clear_record()
        local.faults = Faults(delay=0.3)
        assert asyncio.run(main()) == ("a row", True)

    def test_loaders_run_in_it(self, cache, make_cache, with_loader):
        """They use the database, and its connections belong to that thread."""
        threads = []

        def loader(keys):
            threads.append(threading.get_ident())
            return load(keys)

        async def main():
            await cache.aget_or_load_many(["a", "b"], loader)
            await make_cache(NOBODY).aget_many(["a", "b"], loader=loader)
            with_loader(loader)
            assert await make_cache(NOBODY).aget("async/a") == "loaded-async/a"
            return await sync_to_async(threading.get_ident, thread_sensitive=True)()

        djangos = asyncio.run(main())
        assert threads == [djangos] * 3
        assert djangos != threading.get_ident()

    @pytest.mark.parametrize(
        "call",
        [
            lambda cache, value: cache.aset("a", value),
            lambda cache, value: cache.aadd("a", value),
            lambda cache, value: cache.aset_many({"a": value, "b": 1}),
        ],
        ids=["aset", "aadd", "aset_many"],
    )
    def test_values_are_pickled_in_it(self, cache, call):
        """A query, say, is evaluated then. The network is waited for elsewhere."""

        async def main():
            await call(cache, Lazy())
            return await sync_to_async(threading.get_ident, thread_sensitive=True)()

        assert asyncio.run(main()) == cache.get("a")

    def test_what_a_subclass_does_of_its_own_is_done_there(self, local, make_cache):
        class Upper(SafeCache):
            def get(self, key, default=None, version=None):
                value = super().get(key, default, version)
                return value.upper(), threading.get_ident()

        cache = make_cache(local.address, cls=Upper, **PATIENT)

        async def main():
            await cache.aset("a", "text")
            djangos = sync_to_async(threading.get_ident, thread_sensitive=True)
            return await cache.aget("a"), await djangos()

        (value, thread), djangos = asyncio.run(main())
        assert (value, thread) == ("TEXT", djangos)

    def test_a_sync_middleware_around_does_not_block_it(self, make_cache):
        """Django's thread waits in `async_to_sync` then, and runs the loader there."""
        cache, threads = make_cache(NOBODY), []

        def loader(keys):
            threads.append(threading.get_ident())
            return load(keys)

        def middleware():
            threads.append(threading.get_ident())
            one = async_to_sync(cache.aget_many)(["a"], loader=loader)
            return one, async_to_sync(cache.aget_or_load_many)(["b"], loader)

        async def request():
            async with ThreadSensitiveContext():
                return await sync_to_async(middleware)()

        async def main():
            return await asyncio.wait_for(request(), 20)

        assert asyncio.run(main()) == ({"a": "loaded-a"}, {"b": "loaded-b"})
        assert len(set(threads)) == 1

    def test_those_who_wait_for_a_load_keep_no_other_call_waiting(
        self, cache, make_cache
    ):
        """However few threads the event loop has."""
        dead, goes_on = make_cache(NOBODY), threading.Event()

        def slow(keys):
            assert goes_on.wait(20)
            return load(keys)

        async def main():
            executor = ThreadPoolExecutor(2)
            asyncio.get_running_loop().set_default_executor(executor)
            waiting = [
                asyncio.create_task(dead.aget_many(["a"], loader=slow))
                for _ in range(10)
            ]
            await asyncio.sleep(0.3)
            found = await asyncio.wait_for(cache.aget_many(["there"]), 20)
            goes_on.set()
            return found, await asyncio.gather(*waiting)

        cache.set("there", 1)
        assert asyncio.run(main()) == ({"there": 1}, [load(["a"])] * 10)

    def test_a_loaders_own_exception_is_the_callers(self, cache):
        def loader(keys):
            raise LookupError("no such row")

        with pytest.raises(LookupError, match="no such row"):
            asyncio.run(cache.aget_or_load_many(["a"], loader))


class TestManyTasks:
    def test_200_at_once_get_their_own_answers(self, cache, local):
        """Two keys of each are its own, one is everybody's, one is nobody's."""
        own = {f"{n}-{part}": f"value {n} {part}" for n in range(200) for part in "ab"}
        cache.set_many({**own, "shared": "s"})

        async def read(n):
            return await cache.aget_many([f"{n}-a", f"{n}-b", "shared", "none"])

        async def main():
            return await asyncio.gather(*map(read, range(200)))

        assert asyncio.run(main()) == [
            {f"{n}-a": f"value {n} a", f"{n}-b": f"value {n} b", "shared": "s"}
            for n in range(200)
        ]
        assert local.connections_accepted <= 64

    def test_reads_and_writes_of_200_at_once(self, cache):
        async def work(n):
            keys = [f"{n}-{part}" for part in range(10)]
            assert await cache.aset_many(dict.fromkeys(keys, n)) == []
            found = await cache.aget_many(keys)
            await cache.adelete_many(keys[:5])
            return found, await cache.aget_many(keys)

        async def main():
            return await asyncio.gather(*map(work, range(200)))

        assert asyncio.run(main()) == [
            (
                {f"{n}-{part}": n for part in range(10)},
                {f"{n}-{part}": n for part in range(5, 10)},
            )
            for n in range(200)
        ]

    def test_a_full_pool_is_waited_for(self, local, make_cache):
        cache = make_cache(local.address, pool_max_size=2, **PATIENT)
        cache.set_many({str(n): n for n in range(50)})

        async def main():
            reads = [cache.aget_many([str(n)]) for n in range(50)]
            return await asyncio.gather(*reads)

        assert asyncio.run(main()) == [{str(n): n} for n in range(50)]
        assert local.connections_accepted <= 2


class TestOnePool:
    """Whoever asks a cache of CACHES, one after another: one connection."""

    @pytest.fixture
    def _configured(self, settings, local):
        settings.CACHES = {
            "default": {
                "BACKEND": "django_safecache.backend.SafeCache",
                "LOCATION": local.address,
                "OPTIONS": PATIENT,
            }
        }

    @pytest.mark.usefixtures("_configured")
    def test_tasks_threads_and_loops_share_it(self, local):
        async def tasks():
            for n in range(5):
                await asyncio.create_task(caches["default"].aset_many({"a": n}))
                task = asyncio.create_task(caches["default"].aget_many(["a"]))
                assert await task == {"a": n}
                assert await caches["default"].aget("a") == n

        def thread():
            assert isinstance(caches["default"], SafeCache)
            caches["default"].set("a", "of a thread")
            assert caches["default"].get("a") == "of a thread"

        for _ in range(3):
            asyncio.run(tasks())
            worker = threading.Thread(target=thread)
            worker.start()
            worker.join(30)
        assert caches["default"].get("a") == "of a thread"
        assert local.connections_accepted == 1

    @pytest.mark.usefixtures("_configured")
    def test_it_outlives_the_end_of_a_request(self, local):
        async def request():
            await caches["default"].aget_many(["a", "b"])
            await caches["default"].aclose()

        for _ in range(10):
            asyncio.run(request())
        assert local.connections_accepted == 1


class TestCancel:
    """A task is cancelled while its answer is on the way."""

    @pytest.mark.parametrize("pool", [1, 4])
    def test_no_later_call_sees_the_answer(self, local, make_cache, pool):
        cache = make_cache(local.address, pool_max_size=pool, **PATIENT)
        values = {f"key-{n}": f"value-{n}" for n in range(40)}
        cache.set_many(values)
        local.faults = Faults(delay=0.02)

        async def main():
            for n in range(0, 40, 2):
                task = asyncio.create_task(cache.aget_many([f"key-{n}"]))
                await asyncio.sleep(n / 1000)
                task.cancel()
                later = f"key-{n + 1}"
                assert await cache.aget_many([later]) == {later: values[later]}
                try:
                    assert await task == {f"key-{n}": values[f"key-{n}"]}
                except asyncio.CancelledError:
                    cancelled.append(n)

        cancelled = []
        asyncio.run(main())
        assert len(cancelled) > 3
        assert cache.get_many(values) == values
        assert local.connections_open <= pool

    def test_a_task_that_waits_for_too_long_is_left(self, local, cache):
        """asyncio's own timeout is no failure of the cache: the next call is right."""
        cache.set_many({"a": 1, "b": 2})
        local.faults = Faults(delay=0.2)

        async def main():
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(cache.aget_many(["a"]), timeout=0.02)
            return await cache.aget_many(["b"])

        assert asyncio.run(main()) == {"b": 2}
