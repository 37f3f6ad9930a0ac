"""On whose account something happened."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from structlog.contextvars import get_contextvars

AccountStorage = Literal["hmac", "plain", "never"]


def account_reader(
    *,
    contextvar: str | None,
    read: Callable[[], object] | None,
    storage: AccountStorage,
    key: Callable[[], bytes],
) -> Callable[[], str]:
    """A function that tells the current account as it may be stored, ``""`` for none.

    Taken from `read` if that is given, else from structlog's context variable of
    that name. As an HMAC under what `key` returns it can be
    counted, not read. The function never
    raises: an account that cannot be had is none.
    """

    @lru_cache(maxsize=1024)
    def hidden(account: str) -> str:
        if storage == "plain":
            return account
        message = account.encode("utf-8", "backslashreplace")
        return hmac.new(key(), message, "sha256").hexdigest()[:32]

    def current() -> str:
        try:
            account = read() if read else get_contextvars().get(contextvar or "")
            return "" if account in (None, "") else hidden(str(account))
        except Exception:  # `read` is the site's code, and a failure is being counted
            return ""

    return (lambda: "") if storage == "never" or not (read or contextvar) else current
