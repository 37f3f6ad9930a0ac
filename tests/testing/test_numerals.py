from __future__ import annotations

import pytest

from django_safecache.testing.numerals import signed, unsigned


class TestUnsigned:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            (b"0", 0),
            (b"18446744073709551615", 2**64 - 1),
            (b"18446744073709551616", None),
            (b"\t+7", 7),
            (b"1\t2", 1),
            (b"1\x002", 1),
            (b"10\r\n", 10),
            (b"1x", None),
            (b"", None),
            (b"\r\n", None),
            (b"-1", None),
            (b"-18446744073709551615", 1),
            (b"1_0", None),
            ("\u0661".encode(), None),
            (b"0" * 5000 + b"7", 7),
            (b"9" * 5000, None),
        ],
    )
    def test_reads_what_strtoull_reads(self, text, number):
        assert unsigned(text) == number


class TestSigned:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            (b"-1", -1),
            (b"2147483647", 2**31 - 1),
            (b"2147483648", -(2**31)),
            (b"4294967296", 0),
            (b"9223372036854775808", None),
            (b"-9223372036854775808", 0),
            (b"1.5", None),
        ],
    )
    def test_keeps_the_lowest_32_bits_as_memcached_does(self, text, number):
        assert signed(text) == number
