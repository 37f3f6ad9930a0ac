"""System checks, tag ``safecache``. An id means the same for ever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.cache import caches
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_safecache.backend import SafeCache
from django_safecache.conf import get_settings
from django_safecache.memcached.options import OBSOLETE

TAG = "safecache"
# What Django sends from when a project has not said anything.
NO_SENDER = "webmaster@localhost"

_AppConfigs = Sequence[AppConfig] | None


@register(TAG)
def check_setting(app_configs: _AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """E001: ``SAFECACHE`` cannot be used as it is."""
    try:
        get_settings()
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                hint="Correct the SAFECACHE setting.",
                id="django_safecache.E001",
            )
        ]
    return []


@register(TAG)
def check_caches(app_configs: _AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """E002: a cache of this package cannot be made of its settings.

    Django's own checks make all caches too, and let the exception through: it is
    ``check --tag safecache`` that tells this in a line.
    """
    errors: list[CheckMessage] = []
    for alias in _safe_caches():
        try:
            caches.create_connection(alias)
        except ImproperlyConfigured as error:
            errors.append(
                Error(
                    f"CACHES[{alias!r}] cannot be used: {error}",
                    hint="Correct its LOCATION or OPTIONS.",
                    id="django_safecache.E002",
                )
            )
    return errors


@register(TAG)
def check_database(app_configs: _AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """E003: the database that the counts are to be stored in does not exist."""
    try:
        database = get_settings().database
    except ImproperlyConfigured:  # is E001
        return []
    if database in settings.DATABASES:
        return []
    return [
        Error(
            f'SAFECACHE["DATABASE"] is {database!r}, which is not in DATABASES.',
            hint=f"Use one of {', '.join(map(repr, settings.DATABASES))}.",
            id="django_safecache.E003",
        )
    ]


@register(TAG)
def check_in_use(app_configs: _AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """W001: the app is installed, and nothing uses the cache it belongs to."""
    if any(True for _ in _safe_caches()):
        return []
    return [
        Warning(
            "django_safecache is in INSTALLED_APPS, but no cache uses it: there is "
            "nothing to count.",
            hint='Set "BACKEND": "django_safecache.backend.SafeCache" in CACHES.',
            id="django_safecache.W001",
        )
    ]


@register(TAG)
def check_time_zones(app_configs: _AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """W002: counts are stored with their time zone, which needs ``USE_TZ``."""
    if settings.USE_TZ:
        return []
    return [
        Warning(
            "USE_TZ is False: the counts cannot be stored.",
            hint="Set USE_TZ = True. The cache itself works without.",
            id="django_safecache.W002",
        )
    ]


@register(TAG)
def check_sender(app_configs: _AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """W003: the digest is mailed from an address that nobody has chosen."""
    try:
        digest = get_settings().digest
    except ImproperlyConfigured:  # is E001
        return []
    if (
        not digest.recipients
        or digest.sender
        or settings.DEFAULT_FROM_EMAIL != NO_SENDER
    ):
        return []
    return [
        Warning(
            f"The digest would be mailed from {NO_SENDER}, and be refused by many "
            "mail servers.",
            hint='Set SAFECACHE["DIGEST"]["FROM"] or DEFAULT_FROM_EMAIL.',
            id="django_safecache.W003",
        )
    ]


@register(TAG)
def check_obsolete_options(
    app_configs: _AppConfigs, **kwargs: Any
) -> list[CheckMessage]:
    """W004: an option of pymemcache that has nothing to decide here."""
    return [
        Warning(
            f"CACHES[{alias!r}]: OPTIONS[{name!r}] has no effect: {OBSOLETE[name]}.",
            hint="Remove it.",
            id="django_safecache.W004",
        )
        for alias in _safe_caches()
        for name in settings.CACHES[alias].get("OPTIONS") or {}
        if name in OBSOLETE
    ]


def _safe_caches() -> Iterator[str]:
    """Aliases whose backend is `SafeCache` or a child of it."""
    for alias, params in settings.CACHES.items():
        try:
            backend = import_string(params.get("BACKEND", ""))
        except ImportError:  # Django says so when the cache is asked for
            continue
        if isinstance(backend, type) and issubclass(backend, SafeCache):
            yield alias
