from __future__ import annotations

import math
from itertools import compress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.recording.histogram import (
    COLUMNS,
    UPPER_BOUNDS,
    counted,
    percentile,
)


class TestCounted:
    @pytest.mark.parametrize(
        ("duration", "column"),
        [
            (0.0, "duration_to_100us"),
            (0.0001, "duration_to_100us"),
            (0.00011, "duration_to_250us"),
            (1.0, "duration_to_1000000us"),
            (1.1, "duration_longer"),
            (math.inf, "duration_longer"),
        ],
    )
    def test_a_duration_is_counted_up_to_and_with_its_bound(self, duration, column):
        assert [*compress(COLUMNS, counted([duration]))] == [column]

    @given(st.lists(st.floats(0, 2)))
    def test_each_duration_is_counted_once_whatever_the_order(self, durations):
        one_by_one = [
            sum(column)
            for column in zip(*map(counted, ([d] for d in durations)), strict=True)
        ]
        assert counted(durations) == (one_by_one or [0] * len(COLUMNS))

    def test_bounds_ascend_and_columns_are_distinct(self):
        assert list(UPPER_BOUNDS) == sorted(set(UPPER_BOUNDS))
        assert len(set(COLUMNS)) == len(UPPER_BOUNDS) + 1


class TestPercentile:
    def counts(self, *durations):
        return counted(durations)

    def test_without_durations_there_is_none(self):
        assert percentile(self.counts(), 0.5) is None

    def test_it_is_the_bound_that_the_fraction_lies_under(self):
        counts = self.counts(*[0.0002] * 95, *[0.02] * 5)
        assert percentile(counts, 0.5) == 0.00025
        assert percentile(counts, 0.95) == 0.00025
        assert percentile(counts, 0.96) == 0.025
        assert percentile(counts, 1) == 0.025

    def test_beyond_the_last_bound_it_is_not_known(self):
        assert percentile(self.counts(7.0), 0.5) == math.inf
