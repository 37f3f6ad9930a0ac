from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.memcached.batching import get_lines
from django_safecache.memcached.protocol import get_line, keys_of

SEED = Path(__file__).parents[2] / "example_project" / "campfire" / "seed" / "keys.txt"
NO_BLANKS = bytes(byte if byte > 0x20 else byte + 0x21 for byte in range(256))
keys_strategy = st.lists(
    st.binary(min_size=1, max_size=250).map(lambda key: key.translate(NO_BLANKS))
)


class TestGetLines:
    @given(keys_strategy, st.integers(1, 5000), st.integers(1, 600))
    def test_joined_lines_are_the_keys_in_order(self, keys, max_bytes, max_keys):
        """No key is lost, doubled or moved."""
        lines = get_lines(keys, max_bytes=max_bytes, max_keys=max_keys)
        assert [key for line in lines for key in keys_of(line)] == keys

    @given(keys_strategy, st.integers(1, 5000), st.integers(1, 600))
    def test_every_line_fits_or_holds_one_key(self, keys, max_bytes, max_keys):
        """A line exceeds the limit only if a single key does."""
        for line in get_lines(keys, max_bytes=max_bytes, max_keys=max_keys):
            assert 1 <= len(keys_of(line)) <= max_keys
            assert len(line) <= max_bytes or len(keys_of(line)) == 1
            assert line == get_line(b" ".join(keys_of(line)))

    @given(keys_strategy, st.integers(1, 5000), st.integers(1, 600))
    def test_lines_are_full(self, keys, max_bytes, max_keys):
        """The first key of a line would not have fitted in the one before."""
        lines = get_lines(keys, max_bytes=max_bytes, max_keys=max_keys)
        for full, following in pairwise(lines):
            longer = len(full) + 1 + len(keys_of(following)[0])
            assert longer > max_bytes or len(keys_of(full)) == max_keys

    def test_the_campfire_keys_make_36_lines_of_at_most_1024_bytes(self):
        """With Django's default prefix and version: the request that failed in 2011."""
        keys = [b":1:" + key for key in SEED.read_bytes().split()]
        lines = get_lines(keys, max_bytes=1024, max_keys=500)
        assert len(keys) == 421
        assert max(map(len, lines)) <= 1024
        assert len(lines) == 36

    @pytest.mark.parametrize("size", [1018, 1019, 1020])
    def test_crlf_counts(self, size):
        """A key of 1018 bytes and its `get ` and CRLF are exactly 1024."""
        lines = get_lines([b"k" * (size - 2), b"k"], max_bytes=1024, max_keys=9)
        assert len(lines) == (1 if size == 1018 else 2)
