"""How many reports are taken: of each client, and of all in this process."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_CLIENTS = 10_000
"""Remembered at once, about 2 MB. Whoever has more addresses meets the limit of all."""

_MINUTE = 60.0


class RateLimit:
    """Token buckets that hold a minute's reports, one a client and one for all.

    Thread-safe. Clients are remembered by hashes that differ in every process.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # When the bucket will be full again, were nothing taken from it any more.
        self._all_full_at = float("-inf")
        self._full_at: OrderedDict[int, float] = OrderedDict()

    def take(self, address: str, *, per_client: int, per_process: int) -> bool:
        """Whether a report from `address` may be taken now, at so many a minute.

        Without an address only the limit of all holds. What is refused costs nothing.
        """
        client = hash(_network(address)) if address else None
        with self._lock:
            now = self._clock()
            all_full_at = _taken(self._all_full_at, now, per_process)
            if all_full_at is None:
                return False
            if client is not None and not self._take_of(client, now, per_client):
                return False
            self._all_full_at = all_full_at
            return True

    def _take_of(self, client: int, now: float, per_minute: int) -> bool:
        full_at = _taken(self._full_at.get(client, float("-inf")), now, per_minute)
        if full_at is None:
            return False
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        if len(self._full_at) > MAX_CLIENTS:
            self._full_at.popitem(last=False)
        return True


def _taken(full_at: float, now: float, per_minute: int) -> float | None:
    """When the bucket is full again after one more; None if there is none in it."""
    full_at = max(full_at, now) + _MINUTE / per_minute
    # Sums of sixtieths are not exact; the last of a minute's reports is meant to fit.
    return full_at if full_at - now <= _MINUTE + 1e-6 else None


def _network(address: str) -> str:
    """The address, or the network that one IPv6 client has to itself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    # As a socket that takes both tells IPv4 addresses: ::ffff:10.0.0.1
    mapped = parsed.ipv4_mapped if parsed.version == 6 else parsed
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
