from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.memcached.batching import split_batches
from django_safecache.memcached.protocol import get_line

SEED = Path(__file__).parents[2] / "example_project" / "campfire" / "seed" / "keys.txt"
keys_strategy = st.lists(
    st.binary(min_size=1, max_size=250).map(lambda key: key.replace(b"\n", b"n"))
)


class TestSplitBatches:
    @given(keys_strategy, st.integers(1, 5000), st.integers(1, 600))
    def test_joined_batches_are_the_keys_in_order(self, keys, max_bytes, max_keys):
        """No key is lost, doubled or moved."""
        batches = split_batches(keys, max_bytes=max_bytes, max_keys=max_keys)
        assert [key for batch in batches for key in batch] == keys

    @given(keys_strategy, st.integers(1, 5000), st.integers(1, 600))
    def test_every_line_fits_or_holds_one_key(self, keys, max_bytes, max_keys):
        """A line exceeds the limit only if a single key does."""
        for batch in split_batches(keys, max_bytes=max_bytes, max_keys=max_keys):
            assert 1 <= len(batch) <= max_keys
            assert len(get_line(batch)) <= max_bytes or len(batch) == 1

    @given(keys_strategy, st.integers(1, 5000), st.integers(1, 600))
    def test_batches_are_full(self, keys, max_bytes, max_keys):
        """The first key of a batch would not have fitted in the one before."""
        batches = split_batches(keys, max_bytes=max_bytes, max_keys=max_keys)
        for full, following in pairwise(batches):
            longer = get_line([*full, following[0]])
            assert len(longer) > max_bytes or len(full) == max_keys

    def test_the_campfire_keys_make_36_lines_of_at_most_1024_bytes(self):
        """With Django's default prefix and version: the request that failed in 2011."""
        keys = [b":1:" + key for key in SEED.read_bytes().split()]
        batches = split_batches(keys, max_bytes=1024, max_keys=500)
        assert len(keys) == 421
        assert max(len(get_line(batch)) for batch in batches) <= 1024
        assert len(batches) == 36

    @pytest.mark.parametrize("size", [1018, 1019, 1020])
    def test_crlf_counts(self, size):
        """A key of 1018 bytes and its `get ` and CRLF are exactly 1024."""
        batches = split_batches([b"k" * (size - 2), b"k"], max_bytes=1024, max_keys=9)
        assert len(batches) == (1 if size == 1018 else 2)
