"""The whole client against a server that answers anything at all."""

from __future__ import annotations

import pytest
from fuzz.replies import streams
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_safecache.exceptions import ServerUnavailableError
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.memcached.protocol import MAX_LINE
from django_safecache.testing import Faults

PATIENT = {"connect_timeout": 10, "timeout": 10, "deadline": 30}

CALLS = {
    "get": lambda cache: cache.get("a"),
    "get_many": lambda cache: cache.get_many(["a", "bb"]),
    "set": lambda cache: cache.set("a", 1),
    "set_many": lambda cache: cache.set_many({"a": 1, "bb": 2}),
    "add": lambda cache: cache.add("a", 1),
    "touch": lambda cache: cache.touch("a", 10),
    "delete": lambda cache: cache.delete("a"),
    "delete_many": lambda cache: cache.delete_many(["a", "bb"]),
    "has_key": lambda cache: cache.has_key("a"),
}


@pytest.fixture
def cache(local, make_cache):
    """On keys as short as those in the replies: without a prefix."""
    params = {"KEY_FUNCTION": lambda key, prefix, version: key}
    return make_cache(local.address, params=params, **PATIENT)


@pytest.fixture
def answering(local, cache):
    """Have every command answered by these bytes, and then the connection closed, so
    that nobody waits for the rest."""

    def answering(data, *, kept):
        local.faults = Faults()
        cache.disconnect_all()
        if kept:
            cache.get("connected")
        local.faults = Faults(answer=data, cut_reply_after=len(data))

    return answering


# The fixtures are the same for all examples by intent: one client, one server.
hostile = hypothesis_settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class TestHostileServer:
    @hostile
    @given(data=streams, kept=st.booleans(), call=st.sampled_from(sorted(CALLS)))
    @example(
        data=b"VALUE a " + b"0" * 1000 + b" 1\r\nx\r\nEND\r\n", kept=True, call="get"
    )
    @example(
        data=b"VALUE a " + b"9" * 4301 + b" 1\r\nx\r\nEND\r\n", kept=True, call="get"
    )
    @example(
        data=b"VALUE a " + b"9" * 4301 + b" 1\r\nx\r\nEND\r\n",
        kept=False,
        call="get_many",
    )
    @example(data=b"SERVER_ERROR " + b"x" * MAX_LINE, kept=False, call="set")
    @example(data=b"VALUE a 2 2\r\n\xff1\r\nEND\r\n", kept=True, call="get")
    def test_no_call_raises_whatever_it_says(
        self, cache, answering, recording, data, kept, call
    ):
        """Each failure has its word, and the client is well afterwards."""
        answering(data, kept=kept)
        CALLS[call](cache)
        assert set(recording.kinds()) <= set(FAILURE_KINDS)
        recording.outcomes.clear()

    @hostile
    @given(data=streams, kept=st.booleans())
    def test_a_count_is_a_number_or_a_value_error(self, cache, answering, data, kept):
        answering(data, kept=kept)
        try:
            assert type(cache.incr("a")) is int
        except ValueError as error:
            told = isinstance(error, ServerUnavailableError) or "Key 'a'" in str(error)
            if not told:
                raise

    @hostile
    @given(data=streams)
    def test_one_key_and_a_batch_of_one_agree(self, cache, answering, data):
        """The short way, a kept connection's, says what the long one says."""
        answering(data, kept=True)
        one = cache.get("a", "nothing")
        answering(data, kept=True)
        many = cache.get_many(["a"])
        assert {"a": one} == {"a": "nothing", **many}
