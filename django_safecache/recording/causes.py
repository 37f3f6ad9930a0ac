"""The causes of failures, found out once for each shape of a text.

A storm has few of them: its texts are the same, or differ by numbers.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from django_safecache.events import get_logger
from django_safecache.recording.fingerprints import Cause, cause_of_shape, shape_of

MAX_REMEMBERED = 1000

Fingerprint = Callable[[Cause], str | None]
"""The site's own grouping: the name of a group, or None to leave a cause where the
rules put it."""

_Key = TypeVar("_Key", bound=Hashable)


class Causes:
    """Remembers causes. Thread-safe.

    `fingerprint` is called once for each cause, while it is remembered. Whatever it
    does, there is a cause: if it raises, or returns anything but a text that says
    something, the rules hold. The first such failure of a process is logged.
    """

    def __init__(self, fingerprint: Fingerprint | None = None) -> None:
        self._fingerprint = fingerprint
        self._by_shape = _Memory[tuple[str, str, int | None, str]]()
        self._regrouped = _Memory[str]()
        self._inside = threading.local()
        self._complained = False

    def of(
        self,
        kind: str,
        exception: str,
        errno: int | None,
        text: str,
        *,
        keys: Iterable[object] = (),
        server: str = "",
    ) -> Cause:
        """The cause of a failure; see `fingerprints.cause_of`."""
        shape = shape_of(exception, errno, text, keys=keys, server=server)
        told = (kind, exception, errno, shape)
        known = self._by_shape.get(told)
        if known is not None:
            return known
        cause = cause_of_shape(*told)
        # A failure of the site's own code that is counted while it is asked to group
        # another one is grouped by the rules, lest it be asked without end.
        if getattr(self._inside, "asking", False):
            return cause
        by_the_rules = cause.fingerprint
        cause = self._regrouped.get(by_the_rules) or self._asked(cause)
        self._regrouped.keep(by_the_rules, cause)
        self._by_shape.keep(told, cause)
        return cause

    def _asked(self, cause: Cause) -> Cause:
        if self._fingerprint is None:
            return cause
        self._inside.asking = True
        try:
            name = self._fingerprint(cause)
        except Exception as error:  # the site's code; the rules of the package are left
            self._complain(f"raised {type(error).__name__}")
            return cause
        finally:
            self._inside.asking = False
        if name is None:
            return cause
        if not isinstance(name, str) or not name.strip():
            self._complain(f"returned {type(name).__name__} that names no group")
            return cause
        return cause.regrouped(name)

    def _complain(self, what: str) -> None:
        if not self._complained:
            self._complained = True
            get_logger().warning("fingerprint_failed", what=what)


class _Memory(Generic[_Key]):
    """Causes by a key, `MAX_REMEMBERED` at the most.

    Which one makes room for another is left to chance: with the oldest one, a few more
    that come in turns would all be forgotten before they come again.
    """

    def __init__(self) -> None:
        self._causes: dict[_Key, Cause] = {}
        self._keys: list[_Key] = []
        # Reentrant, because the garbage collector may run a destructor in between,
        # which logs an error that is counted.
        self._lock = threading.RLock()

    def get(self, key: _Key) -> Cause | None:
        return self._causes.get(key)

    def keep(self, key: _Key, cause: Cause) -> None:
        with self._lock:
            if key in self._causes:
                return
            if len(self._keys) < MAX_REMEMBERED:
                self._keys.append(key)
            else:
                place = random.randrange(MAX_REMEMBERED)  # noqa: S311 - no secret
                self._causes.pop(self._keys[place], None)
                self._keys[place] = key
            self._causes[key] = cause
