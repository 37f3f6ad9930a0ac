"""How many reports are taken: of each client, and of all in this process."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

MAX_CLIENTS = 10_000
"""Remembered at once, about 2 MB. Whoever has more addresses meets the limit of all."""

SITE_SHARE = 4
"""As many clients' reports are taken of one IPv6 site, which is given 65,536 networks
as readily as one, but may as well be the customers of a mobile operator."""

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
        clients = {
            hash(network): per_client * share for network, share in _networks(address)
        }
        with self._lock:
            now = self._clock()
            all_full_at = _taken(self._all_full_at, now, per_process)
            if all_full_at is None or not self._take_of(clients, now):
                return False
            self._all_full_at = all_full_at
            return True

    def _take_of(self, clients: Mapping[int, int], now: float) -> bool:
        """Whether one is left for each of `clients`, at so many a minute."""
        full_at: dict[int, float] = {}
        for client, per_minute in clients.items():
            taken = _taken(self._full_at.get(client, float("-inf")), now, per_minute)
            if taken is None:
                return False
            full_at[client] = taken
        for client, moment in full_at.items():
            self._full_at[client] = moment
            self._full_at.move_to_end(client)
        while len(self._full_at) > MAX_CLIENTS:
            self._full_at.popitem(last=False)
        return True


def _taken(full_at: float, now: float, per_minute: int) -> float | None:
    """When the bucket is full again after one more; None if there is none in it."""
    full_at = max(full_at, now) + _MINUTE / per_minute
    # Sums of sixtieths are not exact; the last of a minute's reports is meant to fit.
    return full_at if full_at - now <= _MINUTE + 1e-6 else None


def _networks(address: str) -> list[tuple[str, int]]:
    """What a client is known by, and how many clients that may be.

    The address; of IPv6 the network that a client has to itself, and its site.
    """
    if not address:
        return []
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return [(address, 1)]
    # As a socket that takes both tells IPv4 addresses: ::ffff:10.0.0.1
    mapped = parsed.ipv4_mapped if parsed.version == 6 else parsed
    if mapped is not None:
        return [(str(mapped), 1)]
    return [
        (str(ipaddress.ip_network((parsed, length), strict=False)), share)
        for length, share in ((64, 1), (48, SITE_SHARE))
    ]
