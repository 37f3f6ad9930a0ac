"""A database connection that is not the site's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import Error, connections

# Seconds until a database that does not answer is given up, by the options of Django's
# backends; the site's own win. PostgreSQL's drivers know no such for a statement.
PATIENCE = {
    "mysql": {"connect_timeout": 5, "read_timeout": 10, "write_timeout": 10},
    "postgresql": {"connect_timeout": 5},
    "sqlite": {"timeout": 5},
}


@contextmanager
def own_connection(alias: str) -> Iterator[None]:
    """Within the block this thread's connection to `alias` is one of its own.

    No transaction of the site's is open on it, and none is rolled back with it. It is
    closed at the end: held open, it would cost the database a connection for every
    process of the site, and work a few milliseconds in ten seconds.
    """
    sites = connections[alias]
    own = connections.create_connection(alias)
    options = {**PATIENCE.get(own.vendor, {}), **own.settings_dict["OPTIONS"]}
    # A place in the site's pool would be one less for the site.
    options.pop("pool", None)
    # The site may commit by itself; here nobody would.
    own.settings_dict = {**own.settings_dict, "OPTIONS": options, "AUTOCOMMIT": True}
    connections[alias] = own
    try:
        yield
    finally:
        connections[alias] = sites
        with suppress(Error):  # it is of no use any more, as it may be
            own.close()
