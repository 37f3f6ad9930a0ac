"""A signal for the site's own alarm: `cache_failed`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.dispatch import Signal

from django_safecache.events import get_logger
from django_safecache.memcached.outcomes import Outcome


class QuietSignal(Signal):
    """A signal whose `send_robust` logs the first exception of each receiver.

    Django's logs every one: an alarm that is broken would be a line per failure.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, object] = {}

    # Django's hook, without a public name. Should it get another, Django logs again.
    def _log_robust_failure(self, receiver: Callable[..., Any], err: Exception) -> None:
        of = receiver if hasattr(receiver, "__qualname__") else type(receiver)
        name = f"{of.__module__}.{of.__qualname__}"
        mine = object()
        # In one step, so that of many threads one tells.
        if self._told.setdefault(name, mine) is mine:
            get_logger().error("signal_receiver_failed", receiver=name, exc_info=err)


cache_failed = QuietSignal()
"""Sent once for each server on which a call had failures, also if a retry made them
good. The sender is `SafeCache`, the class, also for caches of its children.

Receivers get `alias`, `server`, `operation` (the wire's: get, set...) and `failures`, a
tuple of `Failure`. They run within the cache's call, in its thread, and may use the
cache: what fails then sends nothing. What they raise is not the caller's to see; the
first exception of each is logged. The `text` of a failure is unscrubbed.
"""

_sending: ContextVar[bool] = ContextVar("django_safecache_sending", default=False)


class FailureSignal:
    """Sends `cache_failed` for the outcomes that have failures. An observer."""

    def __init__(self, sender: type) -> None:
        self._sender = sender

    def observe(self, outcome: Outcome) -> None:
        if not outcome.failures or _sending.get():
            return
        token = _sending.set(True)
        try:
            cache_failed.send_robust(
                self._sender,
                alias=outcome.alias,
                server=outcome.server,
                operation=outcome.operation,
                failures=outcome.failures,
            )
        finally:
            _sending.reset(token)
