"""The ``SAFECACHE`` setting: its defaults, its types, and what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, cast, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

FlushMode = Literal["thread", "request", "manual", "off"]
AccountStorage = Literal["hmac", "plain", "never"]
SendEmpty = Literal["never", "always"]
Delivery = Literal["at_most_once", "at_least_once"]

DEFAULTS: Mapping[str, Any] = {
    "DATABASE": "default",
    "FLUSH": "thread",
    "FLUSH_INTERVAL": 10,
    "KEY_GROUPS": [],
    "RETENTION_DAYS": {"5min": 2, "hour": 12, "day": 365},
    "ACCOUNT_CONTEXTVAR": "account",
    "ACCOUNT": None,
    "STORE_ACCOUNTS": "hmac",
    "FINGERPRINT": None,
    "RELEASE": "",
    "BROWSER_ERRORS": {"ENABLED": False, "PER_CLIENT": 60, "PER_PROCESS": 600},
    "DIGEST": {
        "RECIPIENTS": [],
        "FROM": None,
        "ENVIRONMENT": "",
        "TIME_ZONE": None,
        "SEND_EMPTY": "never",
        "DELIVERY": "at_most_once",
    },
}


@dataclass(frozen=True, slots=True)
class DigestSettings:
    """``SAFECACHE["DIGEST"]``; `sender` is its ``FROM``, `zone` never None."""

    recipients: tuple[str, ...]
    sender: str | None
    environment: str
    zone: ZoneInfo
    send_empty: SendEmpty
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class BrowserErrorsSettings:
    """``SAFECACHE["BROWSER_ERRORS"]``; reports a minute."""

    enabled: bool
    per_client: int
    per_process: int


# A problem is compared with the 14 days before any day that may still be mailed. There
# are few such rows: problems are as many as causes, and most hours have none.
PROBLEM_HOURS_FOR = timedelta(days=20)


@dataclass(frozen=True, slots=True)
class RetentionDays:
    """Days that the rows of each resolution are kept."""

    five_minutes: int
    hour: int
    day: int


@dataclass(frozen=True, slots=True)
class Settings:
    """``SAFECACHE``, complete and checked; callables are imported."""

    database: str
    flush: FlushMode
    flush_interval: float
    key_groups: tuple[tuple[re.Pattern[str], str], ...]
    retention_days: RetentionDays
    account_contextvar: str | None
    account: Callable[[], object] | None
    store_accounts: AccountStorage
    fingerprint: Callable[..., str | None] | None
    release: str
    browser_errors: BrowserErrorsSettings
    digest: DigestSettings


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings as they are now.

    Raises ImproperlyConfigured that says which name is wrong, what was found there
    and what is expected.
    """
    given = _Names("SAFECACHE", getattr(settings, "SAFECACHE", {}), DEFAULTS)
    digest = _Names("DIGEST", given.values["DIGEST"], DEFAULTS["DIGEST"], given)
    retention = _Names(
        "RETENTION_DAYS",
        given.values["RETENTION_DAYS"],
        DEFAULTS["RETENTION_DAYS"],
        given,
    )
    browser = _Names(
        "BROWSER_ERRORS",
        given.values["BROWSER_ERRORS"],
        DEFAULTS["BROWSER_ERRORS"],
        given,
    )
    return Settings(
        database=given.text("DATABASE"),
        flush=cast(FlushMode, given.one_of("FLUSH", get_args(FlushMode))),
        flush_interval=given.positive_number("FLUSH_INTERVAL"),
        key_groups=_key_groups(given),
        retention_days=RetentionDays(
            five_minutes=retention.positive_integer("5min"),
            hour=retention.positive_integer("hour"),
            day=retention.positive_integer("day"),
        ),
        account_contextvar=given.text_or_none("ACCOUNT_CONTEXTVAR"),
        account=given.callable_or_none("ACCOUNT"),
        store_accounts=cast(
            AccountStorage, given.one_of("STORE_ACCOUNTS", get_args(AccountStorage))
        ),
        fingerprint=given.callable_or_none("FINGERPRINT"),
        release=given.text("RELEASE", empty=True),
        browser_errors=BrowserErrorsSettings(
            enabled=browser.true_or_false("ENABLED"),
            per_client=browser.positive_integer("PER_CLIENT", "reports a minute"),
            per_process=browser.positive_integer("PER_PROCESS", "reports a minute"),
        ),
        digest=DigestSettings(
            recipients=digest.texts("RECIPIENTS"),
            sender=digest.text_or_none("FROM"),
            environment=digest.text("ENVIRONMENT", empty=True),
            zone=_zone(digest),
            send_empty=cast(
                SendEmpty, digest.one_of("SEND_EMPTY", get_args(SendEmpty))
            ),
            delivery=cast(Delivery, digest.one_of("DELIVERY", get_args(Delivery))),
        ),
    )


class _Names:
    """The values of one dict of settings over their defaults, taken by type."""

    def __init__(
        self,
        name: str,
        given: object,
        defaults: Mapping[str, Any],
        parent: _Names | None = None,
    ) -> None:
        self.path: str = f'{parent.path}["{name}"]' if parent else name
        if not isinstance(given, Mapping):
            raise ImproperlyConfigured(
                f"{self.path} is {given!r}, but must be a dictionary."
            )
        for unknown in given:
            if unknown not in defaults:
                raise ImproperlyConfigured(
                    f"{self.path} has the unknown name {unknown!r}; "
                    f"known are {', '.join(defaults)}."
                )
        self.values: dict[str, Any] = {**defaults, **given}

    def wrong(self, name: str, expected: str) -> ImproperlyConfigured:
        found = self.values[name]
        return ImproperlyConfigured(
            f'{self.path}["{name}"] is {found!r}, but must be {expected}.'
        )

    def text(self, name: str, *, empty: bool = False) -> str:
        value = self.values[name]
        if not isinstance(value, str) or not (value or empty):
            raise self.wrong(
                name, "a string" if empty else "a string that says something"
            )
        return value

    def text_or_none(self, name: str) -> str | None:
        value = self.values[name]
        if value is not None and not (isinstance(value, str) and value):
            raise self.wrong(name, "a string or None")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.values[name]
        # A string is a sequence of strings too, and never meant to be one.
        if not isinstance(value, list | tuple | set | frozenset) or not all(
            isinstance(item, str) and item for item in value
        ):
            raise self.wrong(name, "a list of strings")
        return tuple(value)

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.values[name]
        if not isinstance(value, str) or value not in choices:
            raise self.wrong(name, f"one of {', '.join(map(repr, choices))}")
        return value

    def positive_number(self, name: str) -> float:
        value = self.values[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise self.wrong(name, "a number of seconds above 0")
        return float(value)

    def true_or_false(self, name: str) -> bool:
        value = self.values[name]
        if not isinstance(value, bool):
            raise self.wrong(name, "True or False")
        return value

    def positive_integer(self, name: str, of: str = "days") -> int:
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.wrong(name, f"a whole number of {of} above 0")
        return value

    def callable_or_none(self, name: str) -> Callable[..., Any] | None:
        value = self.values[name]
        expected = "a callable, the dotted path of one, or None"
        if isinstance(value, str):
            try:
                value = import_string(value)
            except ImportError as error:
                raise self.wrong(name, expected) from error
        if value is not None and not callable(value):
            raise self.wrong(name, expected)
        return cast("Callable[..., Any] | None", value)


def _key_groups(given: _Names) -> tuple[tuple[re.Pattern[str], str], ...]:
    expected = "a list of (regular expression, name of the group)"
    value = given.values["KEY_GROUPS"]
    if not isinstance(value, list | tuple):
        raise given.wrong("KEY_GROUPS", expected)
    groups = []
    for item in value:
        try:
            pattern, name = item
            groups.append((re.compile(pattern), name))
        except (TypeError, ValueError, re.error) as error:
            raise given.wrong("KEY_GROUPS", expected) from error
        # The empty name is the group of keys that match nothing.
        if not isinstance(name, str) or not name or isinstance(pattern, bytes):
            raise given.wrong("KEY_GROUPS", expected)
    return tuple(groups)


def _zone(digest: _Names) -> ZoneInfo:
    name = digest.text_or_none("TIME_ZONE") or settings.TIME_ZONE or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise digest.wrong("TIME_ZONE", "the name of a time zone or None") from error


def _reset(*, setting: str, **kwargs: object) -> None:
    if setting in {"SAFECACHE", "TIME_ZONE"}:
        get_settings.cache_clear()


setting_changed.connect(_reset, dispatch_uid="django_safecache.conf")
