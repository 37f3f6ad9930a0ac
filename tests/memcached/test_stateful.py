"""Random operations and faults against a model of what may come back."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from django_safecache.backend import SafeCache
from django_safecache.exceptions import ServerUnavailableError
from django_safecache.memcached.outcomes import observers
from django_safecache.testing import Faults, LocalMemcached

KEYS = [f"key-{n}" for n in range(6)]
keys = st.sampled_from(KEYS)
key_lists = st.lists(keys, min_size=1, max_size=len(KEYS), unique=True)
OPTIONS = {
    "timeout": 0.05,
    "connect_timeout": 1,
    "deadline": 0.5,
    "batch_max_bytes": 30,
    "pool_max_size": 2,
}
faults = st.one_of(
    st.just(Faults()),
    st.builds(Faults, stall=st.just(True), times=st.integers(1, 3)),
    st.builds(Faults, close_at=st.integers(0, 4), times=st.integers(1, 4)),
    st.builds(Faults, reset_at=st.integers(0, 4), times=st.integers(1, 4)),
    st.builds(Faults, cut_reply_after=st.integers(0, 60), times=st.integers(1, 3)),
    st.builds(Faults, too_many_connections=st.just(True)),
    st.builds(
        Faults,
        answer=st.sampled_from([b"ERROR", b"SERVER_ERROR busy", b"NONSENSE"]),
        only=st.sampled_from([None, b"get", b"set", b"delete"]),
        times=st.integers(1, 3),
    ),
    st.builds(Faults, max_line_bytes=st.integers(20, 40)),
    st.builds(Faults, refuse=st.just(True)),
)


class Seen:
    """An observer that remembers whether anything failed since it was asked."""

    def __init__(self):
        self.failed = False
        self.balanced = True

    def observe(self, outcome):
        self.failed |= bool(outcome.failures)
        if outcome.operation == "get":
            answered = outcome.hits + outcome.misses + outcome.unavailable
            self.balanced &= answered == len(outcome.keys)


class Cache(RuleBasedStateMachine):
    """One process, one server, and an outage now and then.

    `may_hold` is, for each key, what a read may give: the value of the last write that
    was acknowledged and of those after it that may or may not have been carried out. A
    set or delete that was lost leaves nothing that may be read.
    """

    @initialize()
    def begin(self):
        self.server = LocalMemcached()
        self.server.start()
        self.cache = SafeCache(self.server.address, {"OPTIONS": OPTIONS})
        self.may_hold = {key: set() for key in KEYS}
        self.written = 0
        self.seen = Seen()
        observers.connect(self.seen)

    def teardown(self):
        if hasattr(self, "server"):
            observers.disconnect(self.seen)
            self.cache.disconnect_all()
            self.server.stop()

    def value(self):
        self.written += 1
        return self.written

    # What a site does.

    @rule(key=keys)
    def set(self, key):
        value = self.value()
        self.seen.failed = False
        self.cache.set(key, value)
        # With a failure it may have been retried and acknowledged, or lost.
        self.may_hold[key] = {value}

    @rule(some=key_lists)
    def set_many(self, some):
        values = {key: self.value() for key in some}
        not_stored = self.cache.set_many(values)
        for key, value in values.items():
            self.may_hold[key] = set() if key in not_stored else {value}

    @rule(key=keys)
    def add(self, key):
        value = self.value()
        self.seen.failed = False
        if self.cache.add(key, value):
            self.may_hold[key] = {value}
        elif self.seen.failed:  # it may have been carried out
            self.may_hold[key].add(value)

    @rule(key=keys)
    def delete(self, key):
        self.cache.delete(key)
        self.may_hold[key] = set()

    @rule(some=key_lists)
    def delete_many(self, some):
        self.cache.delete_many(some)
        for key in some:
            self.may_hold[key] = set()

    @rule(key=keys)
    def incr(self, key):
        # Numbers far from those that are written.
        try:
            value = self.cache.incr(key, 1_000_000)
        except ServerUnavailableError:
            held = self.may_hold[key]
            self.may_hold[key] = held | {each + 1_000_000 for each in held}
        except ValueError:
            pass
        else:
            self.may_hold[key] = {value}

    @rule(key=keys)
    def get(self, key):
        found = self.cache.get(key)
        assert found is None or found in self.may_hold[key]

    @rule(some=key_lists)
    def get_many(self, some):
        for key, value in self.cache.get_many(some).items():
            assert value in self.may_hold[key]

    @rule(some=key_lists)
    def read_many(self, some):
        result = self.cache.read_many(some)
        told = [*result.found, *result.missing, *result.unavailable]
        assert sorted(told) == sorted(some)
        for key, value in result.found.items():
            assert value in self.may_hold[key]

    # What happens to it.

    @rule(faults=faults)
    def fail(self, faults):
        self.server.faults = faults

    @rule()
    def recover(self):
        self.server.faults = Faults()
        self.cache._cluster.servers[0].breaker.reset()

    @rule(keeps=st.booleans())
    def restart(self, keeps):
        self.server.stop()
        self.server.start(keep_items=keeps)
        self.cache._cluster.servers[0].breaker.reset()

    @rule()
    def disconnect(self):
        self.cache.disconnect_all()

    # What always holds.

    @invariant()
    def every_key_asked_for_is_counted_once(self):
        assert not hasattr(self, "seen") or self.seen.balanced

    @invariant()
    def no_connection_leaks(self):
        if hasattr(self, "cache"):
            assert self.cache.server_status()[0].connections <= 2


def test_no_value_is_older_than_the_last_acknowledged_write():
    run_state_machine_as_test(
        Cache,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
