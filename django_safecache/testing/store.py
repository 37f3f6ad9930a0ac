"""The items of a small memcached: bounded, the least recently used out first."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal

from django_safecache.testing.numerals import unsigned

Stored = Literal["STORED", "NOT_STORED", "EXISTS", "NOT_FOUND"]

MEBIBYTE = 1024 * 1024
THIRTY_DAYS = 30 * 24 * 60 * 60
CRLF = b"\r\n"

# sizeof(item), the cas number and the key's NUL in memcached 1.6: with them the
# largest value of a one-byte key is 1,048,516 bytes, as there.
_ITEM_OVERHEAD = 48 + 8 + 1
_FLAGS_SIZE = 4


@dataclass(slots=True)
class Item:
    """One stored value; `data` ends with the CRLF it came with."""

    data: bytes
    flags: int
    expires: float
    """Unix time from which it is gone; infinite for never."""
    cas: int
    time: float
    """Unix time at which it was stored."""


class Store:
    """Items within `limit_maxbytes`, each of at most `item_size_max` bytes.

    Sizes are counted as memcached counts them, its overhead included. `clock`
    returns Unix time in seconds; items expire to its full precision, where
    memcached's own clock ticks once a second. Not thread-safe.
    """

    def __init__(
        self,
        limit_maxbytes: int = 64 * MEBIBYTE,
        item_size_max: int = MEBIBYTE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.limit_maxbytes = limit_maxbytes
        self.item_size_max = item_size_max
        self.clock = clock
        self.started = clock()
        self.stats: Counter[str] = Counter()
        """Counters by the names that memcached's ``stats`` gives them."""
        self.bytes = 0
        self._items: OrderedDict[bytes, Item] = OrderedDict()
        self._cas = 0
        self._flush_at = inf

    def __len__(self) -> int:
        return len(self._items)

    def refusal(self, key: bytes, flags: int, length: int) -> str | None:
        """Why a value of `length` bytes cannot be stored, in memcached's words."""
        size = _size(key, flags, length + len(CRLF))
        if size > self.item_size_max:
            return "SERVER_ERROR object too large for cache"
        if size > self.limit_maxbytes:
            return "SERVER_ERROR out of memory storing object"
        return None

    def get(self, key: bytes) -> Item | None:
        item = self._find(key)
        self.stats["cmd_get"] += 1
        self.stats["get_misses" if item is None else "get_hits"] += 1
        return item

    def touch(self, key: bytes, exptime: int) -> Item | None:
        """Give a live item another `exptime`; None if there is none."""
        item = self._find(key)
        self.stats["cmd_touch"] += 1
        self.stats["touch_misses" if item is None else "touch_hits"] += 1
        if item is not None:
            item.expires = self._expires(exptime)
        return item

    def delete(self, key: bytes) -> bool:
        item = self._find(key)
        self.stats["delete_misses" if item is None else "delete_hits"] += 1
        if item is not None:
            self.unlink(key)
        return item is not None

    def put(
        self,
        command: str,
        key: bytes,
        data: bytes,
        *,
        flags: int = 0,
        exptime: int = 0,
        cas: int = 0,
    ) -> Stored:
        """Carry out a storage command; `data` is the value and its CRLF.

        The caller has asked `refusal` first.
        """
        old = self._find(key)
        refused = self._verdict(command, old, cas)
        if refused is not None:
            return refused
        if old is not None and command in ("append", "prepend"):
            return self._extend(command, key, old, data)
        self._link(key, data, flags, self._expires(exptime))
        return "STORED"

    def delta(self, command: str, key: bytes, amount: int) -> bytes | None:
        """The new number after ``incr`` or ``decr``; None if there is no item.

        Raises ValueError if the item is not a number.
        """
        item = self._find(key)
        if item is None:
            self.stats[f"{command}_misses"] += 1
            return None
        number = unsigned(item.data)
        if number is None:
            raise ValueError("cannot increment or decrement non-numeric value")
        self.stats[f"{command}_hits"] += 1
        wrapped = (number + amount) % 2**64
        text = b"%d" % (wrapped if command == "incr" else max(0, number - amount))
        # memcached writes in place: a shorter number is followed by spaces.
        padded = text.ljust(len(item.data) - len(CRLF))
        self._link(key, padded + CRLF, item.flags, item.expires)
        return text

    def flush(self, exptime: int = 0) -> None:
        """Forget all items there are now, or that there will be at `exptime`."""
        self.stats["cmd_flush"] += 1
        self._flush_at = inf
        if exptime > 0:
            self._flush_at = self._expires(exptime)
        else:
            self._items.clear()
            self.bytes = 0

    def unlink(self, key: bytes) -> None:
        """Forget `key` if it is there."""
        item = self._items.pop(key, None)
        if item is not None:
            self.bytes -= _size(key, item.flags, len(item.data))

    def _verdict(self, command: str, old: Item | None, cas: int) -> Stored | None:
        """Why `command` stores nothing, or None if it may."""
        if command == "cas":
            return self._cas_verdict(old, cas)
        if command == "add":
            return None if old is None else "NOT_STORED"
        if command in ("replace", "append", "prepend") and old is None:
            return "NOT_STORED"
        return None

    def _cas_verdict(self, old: Item | None, cas: int) -> Stored | None:
        if old is None:
            self.stats["cas_misses"] += 1
            return "NOT_FOUND"
        self.stats["cas_hits" if old.cas == cas else "cas_badval"] += 1
        return None if old.cas == cas else "EXISTS"

    def _extend(self, command: str, key: bytes, old: Item, data: bytes) -> Stored:
        ahead, behind = (old.data, data) if command == "append" else (data, old.data)
        joined = ahead[: -len(CRLF)] + behind
        if self.refusal(key, old.flags, len(joined) - len(CRLF)):
            return "NOT_STORED"
        self._link(key, joined, old.flags, old.expires)
        return "STORED"

    def _find(self, key: bytes) -> Item | None:
        """The live item of `key`, now the most recently used."""
        now = self.clock()
        if self._flush_at <= now:
            self._sweep()
        item = self._items.get(key)
        if item is None:
            return None
        if item.expires <= now:
            self.unlink(key)
            return None
        self._items.move_to_end(key)
        return item

    def _sweep(self) -> None:
        """Carry out a delayed flush: what was stored before its time goes."""
        due, self._flush_at = self._flush_at, inf
        for key in [k for k, item in self._items.items() if item.time <= due]:
            self.unlink(key)

    def _link(self, key: bytes, data: bytes, flags: int, expires: float) -> None:
        self.unlink(key)
        self._cas += 1
        self._items[key] = Item(data, flags, expires, self._cas, self.clock())
        self.bytes += _size(key, flags, len(data))
        self.stats["total_items"] += 1
        while self.bytes > self.limit_maxbytes:
            self._evict()

    def _evict(self) -> None:
        key, item = next(iter(self._items.items()))
        self.unlink(key)
        expired = item.expires <= self.clock()
        self.stats["reclaimed" if expired else "evictions"] += 1

    def _expires(self, exptime: int) -> float:
        """Unix time for an exptime: seconds from now, or beyond 30 days absolute."""
        if exptime == 0:
            return inf
        if exptime < 0:
            return -inf
        if exptime > THIRTY_DAYS:
            return float(exptime)
        return self.clock() + exptime


def _size(key: bytes, flags: int, data_length: int) -> int:
    """Bytes an item takes in memcached 1.6."""
    return _ITEM_OVERHEAD + len(key) + data_length + (_FLAGS_SIZE if flags else 0)
