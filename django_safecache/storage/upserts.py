"""Inserts rows, or replaces the figures of those that exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from django.db import connections, models

from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.recording import histogram
from django_safecache.recording.cells import COUNTS

CELL_KEY = ("writer", "resolution", "place", "bucket")
CELL_TOTALS = (
    *COUNTS,
    *FAILURE_KINDS,
    *histogram.COLUMNS,
    "duration_sum",
    "duration_max",
)
COUNT_KEY = ("writer", "resolution", "bucket", "problem", "place_hash")
# Rows of one statement. SQLite allows fewer of 47 columns; Django knows that.
BATCH_SIZE = 200

_Row = TypeVar("_Row", bound=models.Model)


def upsert(
    rows: Sequence[_Row], using: str, *, key: Sequence[str], totals: Sequence[str]
) -> None:
    """Insert `rows`, or replace the `totals` of those whose `key` exists.

    `rows` must be in the order of the key: rows in another order, from several
    processes, are deadlocks on PostgreSQL and MariaDB.
    """
    if not rows:
        return
    features = connections[using].features
    # MySQL and MariaDB take any unique key as the conflict, and refuse to be told.
    named = features.supports_update_conflicts_with_target
    type(rows[0])._default_manager.using(using).bulk_create(
        rows,
        batch_size=BATCH_SIZE,
        update_conflicts=True,
        unique_fields=key if named else None,
        update_fields=totals,
    )
