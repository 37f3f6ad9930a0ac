"""What a failure to store something is a failure of."""

from __future__ import annotations

from django.db import DataError

UNFIT = (DataError, OverflowError, TypeError, ValueError)
"""Of a text or a number that a field, a driver or a database does not take. Whatever
else is raised (a database that is away, a thread that cannot be had, a connection that
is not to be used here) is not of what is stored, and may pass."""
