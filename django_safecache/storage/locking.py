"""One rollup or prune at a time, whichever hosts run it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from django_safecache.models import Horizon, Resolution


def prepare(using: str) -> None:
    """Make sure there are the rows to lock."""
    Horizon.objects.using(using).bulk_create(
        [Horizon(resolution=resolution) for resolution in Resolution],
        ignore_conflicts=True,
    )


@contextmanager
def locked(using: str) -> Iterator[None]:
    """A transaction that waits for others of this kind, then sees what they did.

    By an update that changes nothing: unlike SELECT FOR UPDATE it is a lock in SQLite
    as well, where a transaction that begins by reading cannot write after another did.
    """
    with transaction.atomic(using=using):
        row = Horizon.objects.using(using).filter(resolution=Resolution.DAY)
        row.update(resolution=Resolution.DAY)
        yield
