"""What is done from time to time to keep the tables small."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django_safecache.conf import RetentionDays
from django_safecache.storage.folding import fold
from django_safecache.storage.locking import prepare
from django_safecache.storage.pruning import prune


@dataclass(frozen=True, slots=True)
class RolledUp:
    """How many rows of writers were rolled up, and how many rows were deleted."""

    folded: int
    pruned: int


def roll_up(now: datetime, *, using: str, retention: RetentionDays) -> RolledUp:
    """Roll up what is final, then prune what is past retention.

    Any number of processes may do this at the same time, beside any number of
    writers, and be killed while they do: it is done in short transactions, each of
    which leaves every count exact. Done again it does nothing. Raises what the
    database raises; then what was done until then stays done.

    `now` is not to be later than it is, see `now_at_most`: a process that it takes for
    dead loses what it has yet to store of that time.
    """
    prepare(using)
    return RolledUp(
        folded=fold(now, using=using),
        pruned=prune(now, using=using, retention=retention),
    )
