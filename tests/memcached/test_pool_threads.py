"""The pool in a storm: threads, faults, forks and threads that are ended by force."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

import pytest
from socket_modules import SocketModule

from django_safecache.exceptions import ServerUnavailableError
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import parse_address
from django_safecache.memcached.pool import Pool
from django_safecache.testing import Faults, LocalMemcached

PATIENT = {"connect_timeout": 20, "timeout": 20, "deadline": 60}
THREADS = 50
STORM_SECONDS = 4.0
POOL = 8


class Sockets(SocketModule):
    """The socket module, counting how many of its sockets are open."""

    def __init__(self):
        self.open = 0
        self.most = 0
        self._lock = threading.Lock()

    def socket(self, *args):
        return _Counted(self, *args)

    def count(self, change):
        with self._lock:
            self.open += change
            self.most = max(self.most, self.open)


class _Counted(socket.socket):
    def __init__(self, sockets, *args):
        self._sockets = sockets
        super().__init__(*args)
        sockets.count(1)

    def _real_close(self, *args):  # of the standard library: the descriptor goes
        super()._real_close(*args)
        sockets, self._sockets = self._sockets, None
        if sockets is not None:
            sockets.count(-1)


def open_files():
    return len(os.listdir("/dev/fd"))


def descriptors():
    """What is open, for the message of a test that fails."""
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            found.append(f"{name} {os.readlink(f'/dev/fd/{name}')}")
    return sorted(found)


def falls_to(files):
    """Whether no more than `files` descriptors are open soon: a server in this process
    closes its ends when it sees that ours are closed, and a socket that an abort left
    half made, in the frames of a traceback, is closed by the collector."""
    until = time.monotonic() + 10
    while open_files() > files and time.monotonic() < until:
        gc.collect()
        time.sleep(0.05)
    return open_files() <= files


def joined(threads, seconds):
    """Wait for all; none may hang."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()] == []


def answers_at_last(cache, key, value):
    """Whether `cache` gives `value`: an open breaker lets nobody through for a time."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        cache.set(key, value)
        if cache.get(key) == value:
            return True
        time.sleep(0.05)
    return False


class Storm:
    """Threads that write and read, and remember what was written for each key.

    A value says whose it is, so that a value of another key is seen at once. What is
    wrong is kept, not raised: a thread has nobody to tell.
    """

    def __init__(self, cache):
        self._cache = cache
        self._stop = threading.Event()
        self._written = {f"key-{n}": set() for n in range(200)}
        self.wrong = []
        self.hits = 0
        self.calls = 0

    def run(self, seconds, meanwhile):
        threads = [
            threading.Thread(target=self._work, args=[random.Random(n)], daemon=True)
            for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            meanwhile()
        self._stop.set()
        return joined(threads, 60)

    def _work(self, rng):
        try:
            while not self._stop.is_set():
                self._one_call(rng)
                self.calls += 1
        except BaseException as error:
            self.wrong.append(repr(error))

    def _one_call(self, rng):
        cache = self._cache
        keys = rng.sample(sorted(self._written), rng.choice([1, 5, 60]))
        match rng.randrange(10):
            case 0:
                cache.set(keys[0], self._new_value(keys[0], rng))
            case 1:
                cache.set_many({key: self._new_value(key, rng) for key in keys})
            case 2:
                cache.add(keys[0], self._new_value(keys[0], rng))
            case 3:
                cache.delete_many(keys[:5])
            case 4:
                cache.touch(keys[0], 100)
            case 5:
                self._count(keys[0])
            case 6:
                self._check({keys[0]: cache.get(keys[0])})
            case _:
                self._check(cache.get_many(keys))

    def _new_value(self, key, rng):
        value = f"{key} {rng.random()}" + "." * rng.choice([0, 100, 10_000])
        self._written[key].add(value)
        return value

    def _count(self, key):
        try:
            self._cache.add(f"count-{key}", 0)
            if type(self._cache.incr(f"count-{key}")) is not int:
                self.wrong.append(key)
        except ServerUnavailableError:
            pass
        except ValueError as error:
            # There is no such number: or an error line of a fault.
            if "not found" not in str(error) and "ERROR" not in str(error):
                raise

    def _check(self, found):
        for key, value in found.items():
            if value is None:
                continue
            self.hits += 1
            if value not in self._written[key]:
                self.wrong.append((key, value[:40]))


BREAKS = [
    Faults(),
    Faults(),
    Faults(delay=0.01),
    Faults(close_at=1),
    Faults(close_at=3),
    Faults(reset_at=1),
    Faults(reset_at=5),
    Faults(close_at=0, times=5),
    Faults(cut_reply_after=700),
    Faults(cut_reply_after=3),
    Faults(too_many_connections=True, times=10),
    Faults(answer=b"SERVER_ERROR out of memory", times=20),
    Faults(answer=b"SERVER_ERROR out of memory", only=b"set", times=20),
    Faults(stall=True, times=2),
]
"""All that leaves values whole. Not `garble`: it makes values that nobody wrote."""

OPENS_THE_BREAKER = [Faults(), Faults(delay=0.02), Faults(stall=True)]
REFUSES = [Faults(), Faults(), Faults(), Faults(refuse=True)]


class TestStorm:
    @pytest.fixture
    def servers(self):
        servers = [LocalMemcached() for _ in range(3)]
        for server in servers:
            server.start()
        yield servers
        for server in servers:
            server.stop()

    def test_nobody_gets_what_is_not_theirs_and_nothing_is_lost(
        self, servers, make_cache
    ):
        """50 threads on 3 servers whose faults change 30 times a second."""
        sockets = Sockets()
        cache = make_cache(
            [server.address for server in servers],
            socket_module=sockets,
            pool_max_size=POOL,
            connect_timeout=0.1,
            timeout=0.1,
            deadline=0.3,
        )
        before = open_files()
        rng = random.Random(1)
        storm = Storm(cache)

        def meanwhile():
            servers[0].faults = rng.choice(BREAKS)
            servers[1].faults = rng.choice(OPENS_THE_BREAKER)
            servers[2].faults = rng.choice(REFUSES)
            time.sleep(0.03)

        assert storm.run(STORM_SECONDS, meanwhile)
        assert storm.wrong == []
        assert storm.hits > 100
        assert sockets.most <= POOL * len(servers)
        for server in servers:
            server.faults = Faults()
        for n in range(30):
            assert answers_at_last(cache, f"after-{n}", str(n))
        # What was in flight in the storm was closed, and what is left is free.
        assert sockets.open <= POOL * len(servers)
        cache.disconnect_all()
        assert sockets.open == 0
        assert falls_to(before)

    def test_a_small_pool_is_never_exceeded_while_connections_break(
        self, local, make_cache
    ):
        """Every third command costs a connection, and there are two for 50 threads."""
        sockets = Sockets()
        cache = make_cache(
            local.address,
            socket_module=sockets,
            pool_max_size=2,
            connect_timeout=5,
            timeout=5,
            deadline=10,
        )
        local.faults = Faults(close_at=3)
        storm = Storm(cache)
        assert storm.run(1.5, lambda: time.sleep(0.05))
        assert storm.wrong == []
        assert storm.hits > 0
        assert sockets.most <= 2
        local.faults = Faults()
        assert answers_at_last(cache, "after", "1")
        cache.disconnect_all()
        assert sockets.open == 0


class TestFork:
    # What Python 3.12 warns of is tested here.
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_children_of_busy_threads_open_their_own(self, memcached, make_cache):
        """A fork in the middle of other threads' calls: neither side is disturbed."""
        cache = make_cache(memcached.address, pool_max_size=4, **PATIENT)
        values = {f"key-{n}": f"value-{n}" * 50 for n in range(100)}
        cache.set_many(values)
        stop = threading.Event()
        wrong = []

        def read():
            while not stop.is_set():
                if cache.get_many(values) != values:
                    wrong.append("another's values, or none")

        threads = [threading.Thread(target=read, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        statuses = [self._child(cache, n) for n in range(15)]
        stop.set()
        assert joined(threads, 60)
        assert statuses == [0] * 15
        assert wrong == []
        assert cache.get_many(values) == values

    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_child_leaves_its_parents_connection_as_it_is(self, local, make_cache):
        """Also one that was in use: only its owner may have the kernel drop what is
        unsent."""
        cache = make_cache(local.address, **PATIENT)
        cache.set("a", 1)
        (server,) = cache._cluster.servers
        connection = server.pool.take_idle(time.monotonic())
        connection.in_flight = True
        pid = os.fork()
        if pid == 0:
            connection.close()
            os._exit(0)
        os.waitpid(pid, 0)
        option = connection._sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
        assert struct.unpack("ii", option) == (0, 0)
        connection.in_flight = False
        server.pool.give_back(connection, time.monotonic())
        assert cache.get("a") == 1
        assert local.connections_accepted == 1

    @staticmethod
    def _child(cache, n):
        """Fork; the child asks for one key and says by its status whether it got it."""
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # a child that hangs ends, and fails
            try:
                found = cache.get_many([f"key-{n}"])
                os._exit(0 if found == {f"key-{n}": f"value-{n}" * 50} else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)


class Aborted(BaseException):
    """As a worker that ends the thread of a request that takes too long."""


def abort(thread):
    """Raise `Aborted` in `thread`, wherever it is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(Aborted)
    )


class Victim(threading.Thread):
    """Calls `function` until it is aborted. An abort that strikes where Python drops
    exceptions, a destructor, is lost: then it goes on."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self._function = function
        self.ready = threading.Event()
        self.error = None

    def run(self):
        try:
            try:
                self.ready.set()
                while True:
                    self._function()
            except Aborted:
                pass
            except BaseException as error:
                self.error = error
        except Aborted:  # a second one, in the handler of the first
            pass

    def end(self):
        """Abort it until it has ended; whether it has."""
        for _ in range(20):
            abort(self)
            self.join(1)
            if not self.is_alive():
                return True
        return False


class TestAbort:
    @pytest.fixture(autouse=True)
    def _nothing_is_kept_of_what_cannot_be_raised(self, monkeypatch):
        """An abort in a destructor is told to this hook, and so is a socket that the
        collector closes. The test runner's own keeps the tracebacks until the test
        has ended, and with them what their frames had open."""
        monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)

    @pytest.fixture
    def values(self):
        return {f"key-{n}": f"value-{n}" * 20 for n in range(100)}

    def reader(self, cache, values, wrong):
        """A call for a few keys, which remembers what is wrong."""

        def read():
            wanted = dict(random.sample(sorted(values.items()), 20))
            found = cache.get_many(wanted)
            if found != wanted:
                wrong.append(found)
            key = random.choice(list(wanted))
            if cache.get(key) != wanted[key]:
                wrong.append(key)

        return read

    def assert_all_is_well(self, cache, values, files, pool=2):
        """Right answers at once, in as many threads as there are connections, and no
        more descriptors than those and the server's ends of them."""
        wrong = []
        read = self.reader(cache, values, wrong)
        threads = [threading.Thread(target=read, daemon=True) for _ in range(pool)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        assert joined(threads, 15)
        assert time.monotonic() - started < 5
        assert wrong == []
        assert falls_to(files + 2 * pool), descriptors()
        cache.disconnect_all()
        assert falls_to(files), descriptors()

    @pytest.mark.parametrize("keeps", [True, False], ids=["kept", "fresh"])
    def test_a_thread_that_is_ended_takes_nothing_with_it(
        self, server, make_cache, values, keeps
    ):
        """300 threads, each ended somewhere in a call, and a pool of two."""
        files = open_files()
        cache = make_cache(server.address, pool_max_size=2, **PATIENT)
        cache.set_many(values)
        rng = random.Random(2)
        wrong = []
        read = self.reader(cache, values, wrong)

        def read_fresh():
            cache.disconnect_all()
            read()

        for _ in range(300):
            victim = Victim(read if keeps else read_fresh)
            victim.start()
            assert victim.ready.wait(10)
            time.sleep(rng.random() / 300)
            assert victim.end()
            assert victim.error is None
        assert wrong == []
        self.assert_all_is_well(cache, values, files)

    @pytest.mark.parametrize("nth", range(10))
    def test_a_thread_that_waits_for_the_pools_lock_does_not_take_it_along(self, nth):
        """It is ended as it gets the lock: all others would wait forever."""
        opening, go_on = threading.Event(), threading.Event()

        def create():  # is called with the lock held
            opening.set()
            assert go_on.wait(10)
            return Connection(parse_address("127.0.0.1:1"), Options())

        pool = Pool(create, max_size=4, max_age=60)
        taken = []

        def take():
            taken.append(pool.take(time.monotonic() + 10))

        first = threading.Thread(target=take, daemon=True)
        first.start()
        assert opening.wait(10)
        victim = Victim(take)
        victim.start()
        assert victim.ready.wait(10)
        time.sleep(0.05)  # now it waits for the lock
        abort(victim)
        go_on.set()
        assert joined([first, victim], 10)
        last = threading.Thread(target=take, daemon=True)
        last.start()
        assert joined([last], 5)
        assert len(taken) >= 2

    def test_threads_that_wait_for_a_connection_can_be_ended_too(
        self, server, make_cache, values
    ):
        """Eight threads, two connections: most aborts strike one that waits."""
        files = open_files()
        cache = make_cache(server.address, pool_max_size=2, **PATIENT)
        cache.set_many(values)
        rng = random.Random(3)
        wrong = []
        read = self.reader(cache, values, wrong)
        victims = [Victim(read) for _ in range(8)]
        for victim in victims:
            victim.start()
        for _ in range(300):
            victim = victims.pop(rng.randrange(len(victims)))
            assert victim.ready.wait(10)
            assert victim.end()
            assert victim.error is None
            victims.append(Victim(read))
            victims[-1].start()
        assert all(victim.ready.wait(10) and victim.end() for victim in victims)
        assert wrong == []
        self.assert_all_is_well(cache, values, files)
