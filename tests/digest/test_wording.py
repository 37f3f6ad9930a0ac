from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.digest.wording import (
    Figure,
    clean,
    count,
    figures,
    hit_ratio,
    plural,
    sparkline,
)
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.reports import Totals


def failing(**kinds):
    return {**dict.fromkeys(FAILURE_KINDS, 0), **kinds}


class TestFigures:
    def test_no_data_is_said_and_is_not_zero(self):
        assert figures(None)[0] == Figure("Hits", "no data", "no data", "")
        assert figures(Totals())[0] == Figure("Hits", "0", "no data", "")

    def test_a_number_is_compared_with_the_one_before(self):
        told = figures(Totals(hits=1500, misses=10), Totals(hits=1200, misses=10))
        assert told[0] == Figure("Hits", "1,500", "1,200", "+25 %")
        assert told[1] == Figure("Misses", "10", "10", "same")

    def test_what_was_zero_before_has_no_percentage(self):
        assert figures(Totals(hits=5), Totals())[0] == Figure("Hits", "5", "0", "")

    def test_kinds_of_failure_that_occurred_on_either_side_are_told(self):
        told = figures(
            Totals(failures=failing(epipe=7)), Totals(failures=failing(timeout=2))
        )
        assert [figure for figure in told if figure.detail] == [
            Figure("epipe", "7", "0", "", detail=True),
            Figure("timeout", "0", "2", "-100 %", detail=True),
        ]


class TestHitRatio:
    def test_one_miss_keeps_it_from_being_a_hundred_percent(self):
        assert hit_ratio(Totals(hits=10**9, misses=1)) == "99.9 %"
        assert hit_ratio(Totals(hits=10**9)) == "100.0 %"

    def test_unavailable_keys_are_not_part_of_it(self):
        assert hit_ratio(Totals(hits=1, misses=1, unavailable=98)) == "50.0 %"

    def test_nothing_answered_and_nothing_known_are_told_apart(self):
        assert hit_ratio(Totals(unavailable=3)) == "no reads answered"
        assert hit_ratio(None) == "no data"


class TestSparkline:
    def test_a_gap_is_not_a_low_block(self):
        assert sparkline([None, 0, 1, 50, 100]) == "·▁▂▅█"

    def test_nothing_at_all_is_flat(self):
        assert sparkline([0, 0, 0]) == "▁▁▁"
        assert sparkline([None, None]) == "··"

    @given(st.lists(st.none() | st.integers(min_value=0, max_value=10**15)))
    def test_whatever_is_above_zero_can_be_seen(self, values):
        line = sparkline(values)
        assert len(line) == len(values)
        for value, block in zip(values, line, strict=True):
            assert (block == "·") == (value is None)
            assert (block == "▁") == (value == 0)


class TestClean:
    @pytest.mark.parametrize(
        ("hostile", "shown"),
        [
            ("a\r\nBcc: all@example.com", "a Bcc: all@example.com"),
            ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
            ("invoice\u202egpj.exe", "invoice�gpj.exe"),
            ("\ud800", "�"),
            ("nul\0", "nul�"),
        ],
    )
    def test_what_is_not_plain_text_goes(self, hostile, shown):
        assert clean(hostile, 100) == shown

    def test_long_text_is_cut_and_says_so(self):
        assert clean("x" * 11, 10) == "x" * 9 + "…"
        assert clean("x" * 10, 10) == "x" * 10

    @given(st.text(), st.integers(min_value=1, max_value=50))
    def test_it_is_always_one_printable_line_within_the_limit(self, text, limit):
        shown = clean(text, limit)
        assert len(shown) <= limit
        assert shown.isprintable()


class TestNumbers:
    def test_thousands_are_separated(self):
        assert count(1234567) == "1,234,567"

    def test_one_is_singular(self):
        assert [plural(number, "key") for number in (0, 1, 2)] == [
            "0 keys",
            "1 key",
            "2 keys",
        ]
