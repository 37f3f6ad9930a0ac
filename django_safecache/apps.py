"""Where the parts meet: what is connected when Django has loaded the app."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.crypto import salted_hmac
from django.utils.encoding import force_bytes
from django.utils.translation import gettext_lazy as _

from django_safecache.conf import Settings, get_settings
from django_safecache.memcached.outcomes import observers
from django_safecache.recording.accounts import account_reader
from django_safecache.recording.key_groups import first_match
from django_safecache.recording.leftovers import Leftovers
from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.uncaught import count_uncaught

if TYPE_CHECKING:
    from django_safecache.ingest import Ingest


class SafeCacheConfig(AppConfig):
    name = "django_safecache"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = _("Safe cache")

    ingest: ClassVar[Ingest | None] = None
    """Stores the counts of this process; None before the app is ready."""

    def ready(self) -> None:
        """Connect once: a test that overrides INSTALLED_APPS makes this run again.

        Raises ImproperlyConfigured for a ``SAFECACHE`` that is wrong.
        """
        from django_safecache import checks  # noqa: F401

        if SafeCacheConfig.ingest is None:
            SafeCacheConfig.ingest = _connect(get_settings())


def _connect(conf: Settings) -> Ingest:
    from django_safecache.ingest import Ingest

    recorder = Recorder(
        key_groups=first_match(conf.key_groups),
        account=account_reader(
            contextvar=conf.account_contextvar,
            read=conf.account,
            storage=conf.store_accounts,
            key=_account_key,
        ),
        release=conf.release,
        fingerprint=conf.fingerprint,
    )
    ingest = Ingest(
        recorder,
        mode=conf.flush,
        interval=conf.flush_interval,
        database=conf.database,
        zone=conf.digest.zone,
        leftovers=_leftovers(conf.database),
        under_test=_under_test,
    )
    if conf.flush != "off":
        ingest.connect()
        observers.connect(recorder)
        DigestHandler.recorder = recorder
        if DigestHandler.is_used:
            count_uncaught(recorder)
    return ingest


def _leftovers(alias: str) -> Leftovers | None:
    """A folder for this user's sites, and a name that tells which site is meant, and
    which of its databases. None for a site without a ``SECRET_KEY``."""
    database = settings.DATABASES.get(alias, {})
    names = ("ENGINE", "HOST", "PORT", "NAME", "USER")
    told = [str(database.get(name, "")) for name in names]
    # Which file or service of the driver's is meant; of other values the text may be
    # another one in each process.
    told += [
        f"{name}={value}"
        for name, value in sorted(database.get("OPTIONS", {}).items())
        if isinstance(value, (str, int, os.PathLike))
    ]
    try:
        # Sites may be told from each other by nothing but their key.
        keyed = salted_hmac(
            "django_safecache.leftovers", repr(told), algorithm="sha256"
        )
    except ImproperlyConfigured:
        return None
    site = keyed.hexdigest()[:16]
    folder = f"django_safecache-{os.geteuid()}"
    return Leftovers(Path(tempfile.gettempdir()) / folder, site)


def _under_test() -> bool:
    # What setup_test_environment() keeps until the test run is over. It leaves a
    # mail.outbox as well, but so does a site whose mails stay in memory. The module is
    # not imported for its sake: a test run has it.
    tests: Any = sys.modules.get("django.test.utils")
    return tests is not None and hasattr(tests._TestState, "saved_data")


def _account_key() -> bytes:
    # Prefixed, so that these HMACs are of no use where the key signs something else.
    return b"django_safecache.account:" + force_bytes(settings.SECRET_KEY)
