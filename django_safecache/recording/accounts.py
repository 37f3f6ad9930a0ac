"""On whose account something happened."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from structlog.contextvars import get_contextvars

from django_safecache.recording.fingerprints import shortened

ACCOUNT_LENGTH = 200
"""Characters that are told apart and, if accounts are stored as they are, kept."""

AccountStorage = Literal["hmac", "plain", "never"]


def account_reader(
    *,
    contextvar: str | None,
    read: Callable[[], object] | None,
    storage: AccountStorage,
    key: Callable[[], bytes],
) -> Callable[[], str]:
    """A function that tells the current account as it may be stored, ``""`` for none.

    Taken from `read` if that is given, else from structlog's context variable of that
    name; whatever it is, its text counts, shortened if it is long. As an HMAC under
    what `key` returns it can be counted, not read. The function never raises: an
    account that cannot be had is none. Nor is `read` called while it runs in this
    thread: a cache that fails within it would ask it again, without end.
    """
    inside = threading.local()

    @lru_cache(maxsize=1024)
    def hidden(account: str) -> str:
        if storage == "plain":
            return account
        message = account.encode("utf-8", "backslashreplace")
        return hmac.new(key(), message, "sha256").hexdigest()[:32]

    def current() -> str:
        if getattr(inside, "reading", False):
            return ""
        inside.reading = True
        try:
            account = read() if read else get_contextvars().get(contextvar or "")
            text = "" if account is None else str(account)
            return hidden(shortened(text, ACCOUNT_LENGTH)) if text else ""
        except Exception:  # `read` is the site's code, and a failure is being counted
            return ""
        finally:
            inside.reading = False

    return (lambda: "") if storage == "never" or not (read or contextvar) else current
