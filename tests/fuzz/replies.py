"""Strategies for what looks like memcached's replies, and is not always one."""

from __future__ import annotations

from hypothesis import strategies as st

from django_safecache.memcached.protocol import MAX_LINE

keys = st.sampled_from([b"a", b"bb", b"key", b"c", b"other", b""])
numbers = st.one_of(
    st.integers(0, 30).map(b"%d".__mod__),
    st.sampled_from([b"-1", b"007", b"1e3", b"", b"9999999999", b"1073741825"]),
)
values = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"END\r\n", b"\r\n", b"VALUE a 0 1\r\nx\r\nEND\r\n", b"\r\nEND"]),
)
items = st.builds(
    lambda key, flags, value: (
        b"VALUE %b %b %d\r\n%b\r\n" % (key, flags, len(value), value)
    ),
    keys,
    numbers,
    values,
)
headers = st.builds(b"VALUE %b %b %b\r\n".__mod__, st.tuples(keys, numbers, numbers))
lines = st.sampled_from(
    [
        b"END\r\n",
        b"STORED\r\n",
        b"NOT_STORED\r\n",
        b"DELETED\r\n",
        b"TOUCHED\r\n",
        b"NOT_FOUND\r\n",
        b"OK\r\n",
        b"12\r\n",
        b"VERSION 1.6.18\r\n",
        b"ERROR\r\n",
        b"SERVER_ERROR out of memory\r\n",
        b"CLIENT_ERROR line too long\r\n",
        b"\r\n",
        b"\r",
        b"\n",
    ]
)
long_runs = st.builds(
    lambda start, length, stop: start + b"x" * length + stop,
    st.sampled_from([b"", b"SERVER_ERROR ", b"VERSION ", b"VALUE a 0 "]),
    st.integers(MAX_LINE - 20, MAX_LINE + 20),
    st.sampled_from([b"", b"\r", b"\r\n"]),
)
streams = st.lists(
    st.one_of(items, headers, lines, st.binary(max_size=10), long_runs), max_size=8
).map(b"".join)
