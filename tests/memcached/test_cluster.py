"""The wire against servers that misbehave: what is said of each, and what survives."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time

import pytest
from socket_modules import Deaf, NoSending, SmallBuffers, SocketModule

from django_safecache.memcached.cluster import Cluster
from django_safecache.memcached.options import Options
from django_safecache.memcached.placement import parse_address
from django_safecache.testing import Faults, LocalMemcached


class Recording:
    def __init__(self):
        self.outcomes = []

    def observe(self, outcome):
        self.outcomes.append(outcome)

    @property
    def last(self):
        return self.outcomes[-1]

    @property
    def kinds(self):
        return [failure.kind for failure in self.last.failures]


@pytest.fixture
def recording():
    return Recording()


@pytest.fixture
def make_cluster(recording):
    made = []

    def make(*locations, **options):
        options = {"timeout": 0.2, "deadline": 0.6, **options}
        cluster = Cluster(
            "default",
            [parse_address(location) for location in locations],
            Options.parse(options),
            recording,
        )
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(local, make_cluster):
    return make_cluster(local.address)


def keys(count):
    return {b"key-%03d-%s" % (n, b"k" * 60): n for n in range(count)}


def fill(cluster, count, value=b"v" * 500):
    wanted = keys(count)
    items = [(label, key, value) for key, label in wanted.items()]
    statuses = cluster.store_many("set", items, 0)
    assert len(statuses.answers) == count
    return wanted


class TestFailureKinds:
    """Each way to fail has its own word, on a fresh connection and on a kept one."""

    @pytest.mark.parametrize(
        ("faults", "kind", "phase"),
        [
            (Faults(stall=True), "timeout", "receive"),
            (Faults(close_at=1), "closed", "receive"),
            (Faults(reset_at=1), "reset", "receive"),
            (Faults(refuse=True), "refused", "connect"),
            (Faults(too_many_connections=True), "too_many_connections", "parse"),
            (Faults(answer=b"SERVER_ERROR out of memory"), "server_error", "parse"),
            (Faults(answer=b"CLIENT_ERROR bad"), "client_error", "parse"),
            (Faults(answer=b"ERROR"), "client_error", "parse"),
            (Faults(answer=b"HELLO"), "protocol", "parse"),
            (Faults(cut_reply_after=2), "closed", "receive"),
        ],
    )
    def test_on_a_fresh_connection(
        self, local, cluster, recording, faults, kind, phase
    ):
        local.faults = faults
        values = cluster.get_many({b"a": "a", b"b": "b"})
        assert (values.found, sorted(values.lost)) == ({}, ["a", "b"])
        # After ``ERROR`` each key is tried alone: that may be another.
        failure, *more = recording.last.failures
        assert {each.kind for each in more} <= {kind}
        assert (failure.kind, failure.phase) == (kind, phase)
        assert failure.server == local.address
        assert failure.keys == 2
        assert recording.last.unavailable == 2
        assert recording.last.misses == 0

    def test_the_servers_own_words_are_kept(self, local, cluster, recording):
        local.faults = Faults(answer=b"SERVER_ERROR out of memory storing object")
        cluster.get_many({b"a": "a"})
        (failure,) = recording.last.failures
        assert failure.text == "SERVER_ERROR out of memory storing object"

    def test_errno_bytes_and_age_are_kept(self, local, cluster, recording):
        local.faults = Faults(reset_at=1)
        cluster.get_many({b"a": "a"})
        (failure,) = recording.last.failures
        assert failure.errno == 104
        assert failure.exception == "builtins.ConnectionResetError"
        assert failure.bytes_sent == len(b"get a\r\n")
        assert failure.bytes_received == 0
        assert 0 <= failure.connection_age < 5

    @pytest.mark.parametrize("errno", ["proxy refused", 2**40, [1], True])
    def test_an_errno_that_is_none_is_left_out(self, make_cluster, recording, errno):
        """A proxy's socket may raise `OSError` with any two arguments."""
        cluster = make_cluster("10.0.0.1:11211", socket_module=_Proxied(errno))
        assert cluster.get_many({b"a": "a"}).lost == ["a"]
        (failure,) = recording.last.failures
        assert failure.errno is None
        assert failure.text == f"[Errno {errno}] 10.0.0.1"

    def test_a_server_that_never_ends_runs_into_the_deadline(
        self, local, make_cluster, recording
    ):
        """Progress all the time, but not enough: the call still ends."""
        cluster = make_cluster(local.address, timeout=10, deadline=0.3)
        local.faults = Faults(stall=True)
        started = time.monotonic()
        cluster.get_many({b"a": "a"})
        assert time.monotonic() - started < 2
        assert recording.kinds == ["deadline"]

    @pytest.mark.parametrize("seed", range(12))
    def test_garbled_replies_give_no_wrong_value(self, local, cluster, seed):
        """A key's value is its own, or the key is missing or unavailable."""
        wanted = fill(cluster, 20, b"")
        local.faults = Faults(garble=seed)
        values = cluster.get_many(wanted)
        assert set(values.found.values()) <= {b""}

    def test_hits_are_keys_even_where_their_labels_are_equal(self, cluster, recording):
        """1 and True are two keys, and one entry of a dictionary."""
        cluster.store_many("set", [(1, b"1", "x"), ("t", b"True", "y")], 0)
        cluster.get_many({b"1": 1, b"True": True})
        assert (recording.last.hits, recording.last.misses) == (2, 0)

    def test_the_deadline_holds_however_many_addresses_a_host_has(
        self, make_cluster, recording
    ):
        cluster = make_cluster(
            "many.example:11211",
            socket_module=_Blackholes(),
            connect_timeout=0.1,
            deadline=0.3,
        )
        started = time.monotonic()
        assert cluster.get_many({b"a": "a"}).lost == ["a"]
        assert time.monotonic() - started < 0.3 + 0.3
        assert recording.kinds == ["timeout"]

    def test_an_undecodable_value_is_a_miss(self, cluster, recording):
        """Never a hit of None."""
        cluster.store_many("set", [("a", b"a", {1}), ("b", b"b", 1)], 0)
        with socket.create_connection(_target(cluster)) as raw:
            raw.sendall(b"set a 1 0 4\r\nxxxx\r\n")
            assert raw.recv(100) == b"STORED\r\n"
        values = cluster.get_many({b"a": "a", b"b": "b"})
        assert (values.found, list(values.lost)) == ({"b": 1}, [])
        assert (recording.last.hits, recording.last.misses) == (1, 1)
        assert recording.kinds == ["undecodable"]


def _target(cluster):
    host, _, port = cluster.servers[0].name.partition(":")
    return host, int(port)


class TestAtOnce:
    """One command on a kept connection goes without a pipeline, to the same end."""

    @pytest.fixture
    def kept(self, local, cluster):
        cluster.store_many("set", [("a", b"a", "A")], 0)
        local.clear_record()
        return cluster

    def test_a_hit_and_a_miss(self, kept, recording):
        assert kept.get(b"a", "a").found == {"a": "A"}
        assert (recording.last.hits, recording.last.misses) == (1, 0)
        assert kept.get(b"b", "b") == ({}, (), (), ())
        assert (recording.last.hits, recording.last.misses) == (0, 1)

    def test_the_outcome_is_that_of_the_pipeline(self, kept, recording):
        kept.get(b"a", "a")
        kept.get_many({b"a": "a"})
        quick, slow = (outcome._asdict() for outcome in recording.outcomes[-2:])
        for outcome in (quick, slow):
            outcome["keys"] = list(outcome["keys"])
            outcome["lost"] = list(outcome["lost"])
            assert outcome.pop("duration") > 0
        assert quick == slow

    @pytest.mark.parametrize(
        ("faults", "kind"),
        [
            (Faults(close_at=1, times=1), "closed"),
            (Faults(reset_at=1, times=1), "reset"),
            (Faults(answer=b"HELLO", times=1), "protocol"),
            (Faults(cut_reply_after=10, times=1), "closed"),
        ],
    )
    def test_a_kept_connection_that_fails_is_replaced(
        self, local, kept, recording, faults, kind
    ):
        local.faults = faults
        assert kept.get(b"a", "a").found == {"a": "A"}
        assert recording.kinds == [kind]
        assert (recording.last.hits, recording.last.retries) == (1, 1)

    @pytest.mark.parametrize(
        ("faults", "kind"),
        [
            (Faults(stall=True), "timeout"),
            (Faults(answer=b"SERVER_ERROR out of memory"), "server_error"),
            (Faults(close_at=1), "closed"),
        ],
    )
    def test_what_cannot_be_mended_is_unavailable(
        self, local, kept, recording, faults, kind
    ):
        local.faults = faults
        started = time.monotonic()
        values = kept.get(b"a", "a")
        assert time.monotonic() - started < 0.6 + 0.5
        assert (values.found, list(values.lost)) == ({}, ["a"])
        assert recording.kinds[0] == kind
        assert recording.last.unavailable == 1

    def test_a_send_that_fails_is_told_as_one(self, local, make_cluster, recording):
        module = NoSending()
        cluster = make_cluster(local.address, socket_module=module)
        cluster.get(b"a", "a")
        module.broken = True
        cluster.get(b"a", "a")
        first, *_ = recording.last.failures
        assert (first.kind, first.phase, first.bytes_sent) == ("reset", "send", 0)

    def test_a_value_in_many_packets_is_whole(self, kept):
        value = "v" * 900_000
        kept.store_many("set", [("big", b"big", value)], 0)
        assert kept.get(b"big", "big").found == {"big": value}

    def test_an_undecodable_value_is_a_miss(self, kept, recording):
        with socket.create_connection(_target(kept)) as raw:
            raw.sendall(b"set u 1 0 4\r\nxxxx\r\n")
            assert raw.recv(100) == b"STORED\r\n"
        values = kept.get(b"u", "u")
        assert (values.found, list(values.lost)) == ({}, [])
        assert recording.kinds == ["undecodable"]
        assert (recording.last.hits, recording.last.misses) == (0, 1)

    @pytest.mark.parametrize(
        "value", ["END\r\n", "VALUE a 16 1\r\nx\r\nEND\r\n", "\r\nEND\r\n", ""]
    )
    def test_a_value_that_looks_like_protocol_is_data(self, kept, value):
        kept.store_many("set", [("p", b"p", value)], 0)
        assert kept.get(b"p", "p").found == {"p": value}

    def test_every_command_says_what_it_says_in_a_pipeline(self, kept, recording):
        def answer(statuses):
            return dict(statuses.answers)

        assert answer(kept.store_many("add", [("a", b"a", 1)], 0)) == {
            "a": b"NOT_STORED"
        }
        assert answer(kept.store_many("set", [("n", b"n", 5)], 0)) == {"n": b"STORED"}
        assert recording.last.stored == 1
        assert answer(kept.arithmetic("incr", "n", b"n", 2)) == {"n": b"7"}
        assert answer(kept.touch_many([("n", b"n")], 0)) == {"n": b"TOUCHED"}
        assert answer(kept.delete_many([("n", b"n")])) == {"n": b"DELETED"}
        assert recording.last.deleted == 1
        assert answer(kept.delete_many([("n", b"n")])) == {"n": b"NOT_FOUND"}
        refused = kept.arithmetic("incr", "a", b"a", 1)
        assert "non-numeric" in refused.refusals["a"]


class TestWhatSurvives:
    def test_lines_answered_before_the_failure_stand(self, local, cluster, recording):
        """Of ten lines the fourth fails: three are hits, the rest is unavailable."""
        wanted = fill(cluster, 130)
        fourth = list(wanted)[3 * 14]
        local.faults = Faults(answer=b"HELLO", only=lambda line: fourth in line)
        values = cluster.get_many(wanted)
        assert len(values.found) == 3 * 14
        assert len(values.found) + len(values.lost) == 130
        assert recording.last.hits + recording.last.unavailable == 130
        assert recording.last.misses == 0

    def test_values_of_a_line_that_is_cut_stand(self, local, cluster):
        wanted = fill(cluster, 10)
        cluster.close()
        local.faults = Faults(cut_reply_after=2000)
        values = cluster.get_many(wanted)
        assert len(values.found) == 3
        assert len(values.lost) == 7

    def test_another_servers_keys_are_not_touched(self, make_cluster, recording):
        with LocalMemcached() as good, LocalMemcached() as bad:
            cluster = make_cluster(good.address, bad.address)
            wanted = fill(cluster, 50)
            bad.faults = Faults(stall=True)
            values = cluster.get_many(wanted)
            assert values.lost
            assert len(values.found) + len(values.lost) == 50
            assert {f.server for f in values.failures} == {bad.address}


class Slow:
    """A serde whose values take a while to be read."""

    def serialize(self, key, value):
        return value, 0

    def deserialize(self, key, value, flags):
        if value == b"slow":
            time.sleep(0.4)
        return value


class TestManyServers:
    def test_a_slow_value_of_one_is_no_timeout_of_another(
        self, make_cluster, recording
    ):
        """Its answer lay in the socket all the time."""
        with LocalMemcached() as one, LocalMemcached() as other:
            cluster = make_cluster(
                one.address, other.address, serde=Slow(), timeout=0.2, deadline=5
            )
            wanted = {b"key-%d" % n: n for n in range(40)}
            placed = cluster._placement.servers_of(list(wanted))
            slow = list(wanted)[placed.index(0)]
            cluster.store_many(
                "set",
                [(n, k, b"slow" if k == slow else b"v") for k, n in wanted.items()],
                0,
            )
            other.faults = Faults(delay=0.1)
            values = cluster.get_many(wanted)
        assert len(values.found) == 40
        assert recording.kinds == []


class TestRetry:
    def test_a_restarted_server_is_not_noticed(self, local, cluster, recording):
        """The kept connection is dead; the call gets a new one."""
        cluster.store_many("set", [("a", b"a", 1)], 0)
        local.stop()
        local.start(keep_items=True)
        assert cluster.get_many({b"a": "a"}).found == {"a": 1}
        assert recording.kinds == []

    def test_a_kept_connection_that_dies_under_the_call_is_replaced(
        self, local, cluster, recording
    ):
        cluster.store_many("set", [("a", b"a", 1)], 0)
        local.faults = Faults(close_at=1, times=1)
        assert cluster.get_many({b"a": "a"}).found == {"a": 1}
        assert recording.kinds == ["closed"]
        assert (recording.last.retries, recording.last.hits) == (1, 1)

    @pytest.mark.parametrize("operation", ["add", "incr"])
    def test_what_may_have_been_done_is_not_done_twice(
        self, local, cluster, recording, operation
    ):
        cluster.store_many("set", [("n", b"n", 1)], 0)
        local.faults = Faults(close_at=1, times=1)
        if operation == "add":
            statuses = cluster.store_many("add", [("new", b"new", 1)], 0)
        else:
            statuses = cluster.arithmetic("incr", "n", b"n", 1)
        assert statuses.lost
        assert recording.last.retries == 0
        assert cluster.get_many({b"n": "n"}).found == {"n": 1}

    def test_a_fresh_connection_that_fails_is_not_retried(
        self, local, cluster, recording
    ):
        local.faults = Faults(close_at=1)
        assert cluster.get_many({b"a": "a"}).lost == ["a"]
        assert recording.last.retries == 0


class TestBreaker:
    def test_a_refused_server_is_not_asked_again_at_once(
        self, local, cluster, recording
    ):
        local.stop()
        cluster.get_many({b"a": "a"})
        cluster.get_many({b"a": "a"})
        kinds = [f.kind for o in recording.outcomes for f in o.failures]
        assert kinds == ["refused", "breaker_open"]

    def test_it_is_asked_again_when_it_is_back(self, local, cluster, recording):
        local.stop()
        cluster.get_many({b"a": "a"})
        local.start()
        give_up = time.monotonic() + 5
        while recording.last.failures and time.monotonic() < give_up:
            time.sleep(0.05)
            cluster.get_many({b"a": "a"})
        assert recording.last.misses == 1

    def test_a_full_pool_says_nothing_of_the_server(self, local, make_cluster):
        cluster = make_cluster(local.address, pool_max_size=1)
        (server,) = cluster.servers
        held = [server.pool.take(time.monotonic() + 1)]
        for _ in range(4):
            (failure,) = cluster.get_many({b"a": "a"}).failures
            assert failure.kind == "pool_exhausted"
            assert failure.text == "all 1 connections in use"
        held.pop().close()
        assert cluster.get_many({b"a": "a"}).lost == []


class TestPool:
    def test_threads_share_connections_up_to_the_limit(self, local, make_cluster):
        cluster = make_cluster(local.address, pool_max_size=3, deadline=5)
        local.faults = Faults(delay=0.01)
        threads = [
            threading.Thread(
                target=lambda: [cluster.get_many({b"a": 1}) for _ in "abc"]
            )
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert local.connections_accepted == 3

    def test_an_old_connection_is_replaced(self, local, make_cluster):
        cluster = make_cluster(local.address, max_connection_age=0.05)
        cluster.get_many({b"a": "a"})
        time.sleep(0.06)
        cluster.get_many({b"a": "a"})
        assert local.connections_accepted == 2

    def test_a_slot_is_free_again_when_its_connection_is_forgotten(
        self, local, make_cluster
    ):
        """However a connection is lost, the garbage collector gives its slot back."""
        cluster = make_cluster(local.address, pool_max_size=1)
        (server,) = cluster.servers
        lost = server.pool.take(time.monotonic() + 1)
        del lost
        assert cluster.get_many({b"a": "a"}).lost == []

    def test_a_forked_child_opens_its_own(self, local, cluster):
        """Parent and child never read each other's answers."""
        cluster.store_many("set", [("a", b"a", 1)], 0)
        before = local.connections_accepted
        pid = os.fork()
        if pid == 0:
            found = cluster.get_many({b"a": "a"}).found
            os._exit(0 if found == {"a": 1} else 1)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert local.connections_accepted == before + 1
        assert cluster.get_many({b"a": "a"}).found == {"a": 1}
        assert local.connections_accepted == before + 1


class Interrupted(BaseException):
    """As a worker's abort, or KeyboardInterrupt."""


WIRE = os.sep + os.path.join("django_safecache", "memcached") + os.sep


def interrupt_at(event):
    """Raise `Interrupted` at the `event`-th line that the wire executes from now on."""
    seen = 0

    def trace(frame, kind, _):
        nonlocal seen
        if WIRE not in frame.f_code.co_filename:
            return None
        if kind == "line":
            seen += 1
            if seen == event:
                raise Interrupted
        return trace

    return trace


class TestInterruption:
    """A call may be ended at any point by an exception that is nobody's fault."""

    def call(self, cluster, operation):
        if operation == "get one":
            return cluster.get(b"a", "a")
        if operation == "get":
            return cluster.get_many({b"a": "a", b"c": "c"})
        if operation == "set":
            return cluster.store_many("set", [("a", b"a", "A")], 0)
        return cluster.arithmetic("incr", "n", b"n", 1)

    # A socket that pymemcache was just opening is closed by the collector, which warns.
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    @pytest.mark.parametrize("connected", [True, False], ids=["kept", "fresh"])
    @pytest.mark.parametrize("operation", ["get", "get one", "set", "incr"])
    def test_at_every_line_no_later_call_sees_the_answer(
        self, local, make_cluster, operation, connected
    ):
        """And with a pool of one connection: no slot is lost either."""
        cluster = make_cluster(local.address, pool_max_size=1, timeout=2, deadline=4)
        cluster.store_many("set", [("a", b"a", "A"), ("b", b"b", "B")], 0)
        cluster.store_many("set", [("n", b"n", 100)], 0)
        for event in range(1, 1000):
            if not connected:
                cluster.close()
            previous = sys.gettrace()
            sys.settrace(interrupt_at(event))
            try:
                self.call(cluster, operation)
            except Interrupted:
                interrupted = True
            else:
                interrupted = False
            finally:
                sys.settrace(previous)
            assert cluster.get_many({b"b": "b"}).found == {"b": "B"}, event
            if not interrupted:
                break
        assert 20 < event < 999
        assert local.connections_open <= 1

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_nor_while_it_connects_to_several_servers(self, make_cluster):
        """Which have a pool of one connection each."""
        with LocalMemcached() as one, LocalMemcached() as other:
            cluster = make_cluster(
                one.address, other.address, pool_max_size=1, timeout=2, deadline=4
            )
            values = {key: f"value {n}" for key, n in keys(20).items()}
            cluster.store_many("set", [(n, key, n) for key, n in values.items()], 0)
            for event in range(1, 3000, 3):
                cluster.close()
                previous = sys.gettrace()
                sys.settrace(interrupt_at(event))
                try:
                    cluster.get_many(values)
                except Interrupted:
                    interrupted = True
                else:
                    interrupted = False
                finally:
                    sys.settrace(previous)
                found = cluster.get_many(values).found
                assert found == {value: value for value in values.values()}, event
                if not interrupted:
                    break
            assert 100 < event < 2999
            assert max(one.connections_open, other.connections_open) <= 1

    def test_in_the_middle_of_the_network(self, local, cluster):
        """A call is ended by a signal while its answer is on the way."""
        cluster.store_many("set", [("a", b"a", "A"), ("b", b"b", "B")], 0)

        def interrupt(*_):
            raise Interrupted

        previous = signal.signal(signal.SIGALRM, interrupt)
        local.faults = Faults(delay=0.1)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            with pytest.raises(Interrupted):
                cluster.get_many({b"a": "a"})
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        local.faults = Faults()
        time.sleep(0.12)
        assert cluster.get_many({b"b": "b"}).found == {"b": "B"}


class TestWindow:
    @pytest.mark.parametrize("window", [1, 100, 65536])
    def test_any_window_gives_the_same(self, local, make_cluster, window):
        cluster = make_cluster(local.address, window_bytes=window, deadline=10)
        wanted = fill(cluster, 100, b"v" * 50)
        values = cluster.get_many(wanted)
        assert values.found == dict.fromkeys(wanted.values(), b"v" * 50)

    def test_small_socket_buffers_do_not_deadlock(self, memcached, make_cluster):
        """More bytes than both kernels hold: it reads while it writes."""
        cluster = make_cluster(
            memcached.address,
            socket_module=SmallBuffers(),
            window_bytes=1 << 20,
            timeout=5,
            deadline=30,
        )
        wanted = fill(cluster, 5000, b"v" * 2000)
        assert len(cluster.get_many(wanted).found) == 5000


class TestErrorLinesInAPipeline:
    def test_each_command_gets_its_own_verdict(self, local, cluster, recording):
        """With a small item limit, errors come from the middle of a pipeline."""
        with LocalMemcached(item_size_max=2048) as small:
            small_cluster = Cluster(
                "small", [parse_address(small.address)], Options(), recording
            )
            items = [
                (n, b"key%d" % n, b"x" * (5000 if n in (3, 7) else 5))
                for n in range(40)
            ]
            statuses = small_cluster.store_many("set", items, 0)
            small_cluster.close()
        assert sorted(statuses.refusals) == [3, 7]
        assert set(statuses.refusals.values()) == {
            "SERVER_ERROR object too large for cache"
        }
        assert sorted(statuses.answers) == [n for n in range(40) if n not in (3, 7)]
        assert statuses.lost == []

    def test_a_server_that_refuses_everything_is_left_alone(self, local, cluster):
        """It is not asked four hundred times."""
        local.faults = Faults(answer=b"SERVER_ERROR out of memory storing object")
        items = [(n, b"key%d" % n, b"x") for n in range(400)]
        statuses = cluster.store_many("set", items, 0)
        assert statuses.answers == {}
        assert len(statuses.refusals) + len(statuses.lost) == 400
        assert local.connections_accepted < 20


class TestLocalhost:
    def test_every_address_of_a_host_is_tried(self, local, make_cluster):
        """localhost is ::1 first on many machines, and memcached on 127.0.0.1."""
        cluster = make_cluster(
            f"localhost:{local.port}", socket_module=_SixFirst(local.port)
        )
        assert cluster.get_many({b"a": "a"}).lost == []


class _Blackholes(SocketModule):
    """The socket module of a host with eight addresses that never answer."""

    def __init__(self):
        self._deaf = Deaf()

    def getaddrinfo(self, *_):
        family, kind, proto = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        return [(family, kind, proto, "", self._deaf.target)] * 8

    def __del__(self):
        self._deaf.close()


class _Proxied(SocketModule):
    """The socket module of a site that goes through a proxy, which refuses."""

    def __init__(self, errno):
        self._errno = errno

    def socket(self, *_):
        raise OSError(self._errno, "10.0.0.1")


class _SixFirst(SocketModule):
    """The socket module of a machine where localhost first refuses."""

    def __init__(self, port):
        self._port = port

    def getaddrinfo(self, *_):
        family, kind, proto = socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP
        return [
            (family, kind, proto, "", ("127.0.0.1", 1)),
            (family, kind, proto, "", ("127.0.0.1", self._port)),
        ]


class TestAnswersTooEarly:
    def test_a_command_that_was_not_sent_to_its_end_leaves_no_connection(
        self, make_cluster, recording
    ):
        """The next command would be its data."""

        def answer_at_once(listener):
            connection, _ = listener.accept()
            with connection:
                connection.recv(10)
                connection.sendall(b"STORED\r\n")
                closed.wait(30)

        closed = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=answer_at_once, args=[listener])
            thread.start()
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            cluster = make_cluster(address, timeout=5, deadline=20)
            cluster.store_many("set", [("a", b"a", "x" * 20_000_000)], 0)
            closed.set()
            thread.join()
        assert recording.kinds == ["protocol"]
        assert cluster.servers[0].pool.open_connections() == 0


@pytest.fixture
def deaf():
    """The addresses of five."""
    servers = [Deaf() for _ in range(5)]
    yield [each.address for each in servers]
    for each in servers:
        each.close()


class TestConnecting:
    def test_servers_that_nobody_hears_of_leave_the_others_their_time(
        self, local, make_cluster, recording, deaf
    ):
        """All are connected to at once: one after another would take 5 s of the 4."""
        cluster = make_cluster(
            *deaf, local.address, connect_timeout=1, timeout=3, deadline=4
        )
        values = cluster.get_many(keys(200))
        failed = {failure.server: failure.kind for failure in values.failures}
        assert failed == dict.fromkeys(deaf, "timeout")
        assert 0 < len(values.lost) < 200
        misses = {each.server: each.misses for each in recording.outcomes}
        assert misses[local.address] == 200 - len(values.lost)

    def test_nor_do_those_whose_connections_are_all_in_use(
        self, make_cluster, recording
    ):
        with LocalMemcached() as busy, LocalMemcached() as other:
            cluster = make_cluster(busy.address, other.address, pool_max_size=1)
            held = cluster.servers[0].pool.take(1e9)
            values = cluster.get_many(keys(200))
            held.close()
        failed = {failure.server: failure.kind for failure in values.failures}
        assert failed == {busy.address: "pool_exhausted"}
        assert 0 < len(values.lost) < 200

    def test_names_that_nobody_knows_are_asked_for_once(
        self, make_cluster, recording, monkeypatch
    ):
        """And leave the others their answers. It may take long to find out."""
        asked = []

        def getaddrinfo(host, *args):
            asked.append(host)
            return resolve(host, *args)

        resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with LocalMemcached() as one, LocalMemcached() as other:
            cluster = make_cluster("no.invalid:1", one.address, other.address)
            values = cluster.get_many(keys(200))
        assert {failure.kind for failure in values.failures} == {"unreachable"}
        assert 0 < len(values.lost) < 200
        assert asked.count("no.invalid") == 1
