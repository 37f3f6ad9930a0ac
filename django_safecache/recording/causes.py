"""The causes of failures, found out once for each text: a storm has few of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from django_safecache.events import get_logger
from django_safecache.recording.fingerprints import TEXT_LENGTH, Cause, cause_of

MAX_REMEMBERED = 1000

Fingerprint = Callable[[Cause], str | None]
"""The site's own grouping: the name of a group, or None to leave a cause where the
rules put it."""


class Causes:
    """Remembers causes. Thread-safe.

    `fingerprint` is called once for each cause that is not remembered. Whatever it
    does, there is a cause: if it raises, or returns anything but a text that says
    something, the rules hold. The first such failure of a process is logged.
    """

    def __init__(self, fingerprint: Fingerprint | None = None) -> None:
        self._fingerprint = fingerprint
        self._known: dict[tuple[str, str, int | None, str], Cause] = {}
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
        text = text[:TEXT_LENGTH]
        known = self._known.get((kind, exception, errno, text))
        if known is not None:
            return known
        cause = cause_of(kind, exception, errno, text, keys=keys, server=server)
        # A failure of the site's own code that is counted while it is asked to group
        # another one is grouped by the rules, lest it be asked without end.
        if getattr(self._inside, "asking", False):
            return cause
        cause = self._regrouped(cause)
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[kind, exception, errno, text] = cause
        return cause

    def _regrouped(self, cause: Cause) -> Cause:
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
