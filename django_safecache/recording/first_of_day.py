"""The first different values of a day: made-up ones fill neither memory nor tables."""

from __future__ import annotations

from typing import Generic, TypeVar

DAY_SECONDS = 24 * 3600.0

_T = TypeVar("_T")


class FirstOfDay(Generic[_T]):
    """The first `most` different values in `DAY_SECONDS`, counted from the first one.

    A clock that is set back begins another day. Not thread-safe.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[_T] = set()
        self._since = float("-inf")

    def has_room(self, value: _T, now: float) -> bool:
        """Whether `value` is one of them."""
        if not 0 <= now - self._since < DAY_SECONDS:
            self._known.clear()
            self._since = now
        if value not in self._known and len(self._known) >= self._most:
            return False
        self._known.add(value)
        return True
