"""What a failure to store something is a failure of."""

from __future__ import annotations

from django.db import DataError
from django.db import Error as DatabaseFailure


def may_pass(error: Exception) -> bool:
    """Whether it is the database's, or the machine's, and not of what is stored."""
    if isinstance(error, DataError):
        return False
    return isinstance(error, (DatabaseFailure, OSError, MemoryError))
