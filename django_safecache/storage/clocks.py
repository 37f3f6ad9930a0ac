"""What time it is, where the clocks of hosts may be wrong."""

from __future__ import annotations

from datetime import datetime, timezone

from django.db import connections
from django.utils import timezone as django_timezone

# In seconds, which are the same in every time zone that a connection may have.
_SECONDS = {
    "sqlite": "SELECT STRFTIME('%s', 'now')",
    "postgresql": "SELECT EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP())",
    "mysql": "SELECT UNIX_TIMESTAMP()",
}


def now_at_most(using: str) -> datetime:
    """The time by this host's clock, or by the database's if that is behind it.

    A host whose clock is ahead would take processes that report for dead, and rows
    that are new for old; being late does no harm.
    """
    return min(django_timezone.now(), database_now(using))


def database_now(using: str) -> datetime:
    """The time by the database's clock; by this host's where it cannot be asked."""
    connection = connections[using]
    query = _SECONDS.get(connection.vendor)
    if query is None:
        return django_timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(query)
        (seconds,) = cursor.fetchone()
    return datetime.fromtimestamp(float(seconds), timezone.utc)
