"""What a failure leaves of a transaction."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from django.db import connections, transaction


def unbroken(using: str) -> AbstractContextManager[None]:
    """In a transaction of the caller's, a statement that fails must not break it."""
    within = connections[using].in_atomic_block
    return transaction.atomic(using=using) if within else nullcontext()
