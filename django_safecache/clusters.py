"""The servers of each cache, once for the whole process.

Django makes a backend for every thread that uses a cache. What it holds would be a
pool and a breaker for each thread: here all backends of one entry in CACHES share
them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from django_safecache.memcached.cluster import Cluster
from django_safecache.memcached.options import Options
from django_safecache.memcached.outcomes import observers
from django_safecache.memcached.placement import Address, parse_address

UNNAMED = "unnamed"
"""The alias under which a cache that is not in CACHES is counted."""

_shared: dict[str, tuple[list[Address], Options, Cluster]] = {}


def alias_of(backend: type, location: Any, params: Mapping[str, Any]) -> str | None:
    """The name in CACHES with this configuration: Django does not tell a backend.

    Of two that are the same to the letter, and therefore the same cache, the first.
    """
    given = {"LOCATION": location, **params}
    for alias, config in settings.CACHES.items():
        rest = {name: value for name, value in config.items() if name != "BACKEND"}
        same = {"LOCATION": "", **rest} == given
        if same and import_string(config["BACKEND"]) is backend:
            return str(alias)
    return None


def cluster_of(alias: str | None, location: Any, options: Options) -> Cluster:
    """The servers of a cache; shared if it is in CACHES, a new one if `alias` is None.

    Raises `ValueError` for a LOCATION that names no server, or something else, or a
    unix socket that would have to speak TLS.
    """
    addresses = parse_location(location)
    _check_tls(addresses, options)
    if alias is None:
        return Cluster(UNNAMED, addresses, options, observers)
    known = _shared.get(alias)
    if known is None or known[:2] != (addresses, options):
        made = (addresses, options, Cluster(alias, addresses, options, observers))
        if known is None:
            # Of two threads that are first, both get the cluster of one.
            known = _shared.setdefault(alias, made)
        else:
            known = _shared[alias] = made
    return known[2]


def _check_tls(addresses: Sequence[Address], options: Options) -> None:
    """pymemcache would speak plain text on a unix socket, and say nothing of it."""
    for address in addresses:
        if options.tls_context is not None and isinstance(address.target, str):
            raise ValueError(
                "OPTIONS['tls_context'] cannot protect the unix socket "
                f"{address.name}; remove it, or give this server a cache of its own"
            )


def parse_location(location: Any) -> list[Address]:
    """The servers of a LOCATION: a string of them, split at ``;`` and ``,``, or a
    list. `ValueError` for none."""
    entries = re.split("[;,]", location) if isinstance(location, str) else location
    entries = [entry for entry in entries or () if entry and str(entry).strip()]
    if not entries:
        raise ValueError("LOCATION names no server; expected 'host:port' or a list")
    return [parse_address(entry) for entry in entries]


def _forget(*, setting: str, **kwargs: Any) -> None:
    """A test has changed CACHES: what the old ones had open is closed."""
    if setting == "CACHES":
        while _shared:
            _, shared = _shared.popitem()
            shared[2].close()


setting_changed.connect(_forget)
