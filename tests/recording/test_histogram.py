from __future__ import annotations

import math

import pytest

from django_safecache.recording.histogram import (
    COLUMNS,
    UPPER_BOUNDS,
    percentile,
    position,
)


class TestPosition:
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
        assert COLUMNS[position(duration)] == column

    def test_bounds_ascend_and_columns_are_distinct(self):
        assert list(UPPER_BOUNDS) == sorted(set(UPPER_BOUNDS))
        assert len(set(COLUMNS)) == len(UPPER_BOUNDS) + 1


class TestPercentile:
    def counts(self, *durations):
        counts = [0] * len(COLUMNS)
        for duration in durations:
            counts[position(duration)] += 1
        return counts

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
