from __future__ import annotations

import pickle

import pymemcache.serde
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.exceptions import UndecodableValueError
from django_safecache.memcached.serde import PickleSerde, decode, encode

values = st.one_of(
    st.text(),
    st.binary(),
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    st.dictionaries(st.text(), st.integers()),
)


class Text(str):
    __slots__ = ()


class TestFormats:
    @given(values)
    def test_what_this_writes_pymemcache_reads(self, value):
        data, flags = encode(PickleSerde(), b"k", value)
        read = pymemcache.serde.pickle_serde.deserialize(b"k", data, flags)
        assert read == value
        assert type(read) is type(value)

    @given(values)
    def test_what_pymemcache_writes_this_reads(self, value):
        data, flags = encode(pymemcache.serde.pickle_serde, b"k", value)
        read = decode(PickleSerde(), b"k", b"%d" % flags, data)
        assert read == value
        assert type(read) is type(value)

    def test_flags_are_pymemcaches(self):
        flags = [encode(PickleSerde(), b"k", v)[1] for v in (b"x", None, 1, "x", True)]
        assert flags == [0, 1, 2, 16, 1]

    def test_longs_of_old_clients_are_read(self):
        assert decode(PickleSerde(), b"k", b"4", b"12") == 12

    def test_subclasses_keep_their_class(self):
        data, flags = encode(PickleSerde(), b"k", Text("x"))
        assert flags == 1
        assert type(decode(PickleSerde(), b"k", b"%d" % flags, data)) is Text


class TestUndecodable:
    @pytest.mark.parametrize(
        ("data", "flags"),
        [
            (b"not a pickle", 1),
            (b"\xff", 16),
            (b"1.5", 2),
            (b"", 1),
            (pickle.dumps(Text).replace(b"Text", b"Gone"), 1),
        ],
    )
    def test_a_broken_value_raises_and_is_no_none(self, data, flags):
        with pytest.raises(UndecodableValueError, match=f"flags {flags}"):
            decode(PickleSerde(), b"k", b"%d" % flags, data)
