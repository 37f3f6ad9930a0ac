"""What columns hold, and how long it may be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

ALIAS_LENGTH = 64
SERVER_LENGTH = 255
KEY_GROUP_LENGTH = 120
WRITER_LENGTH = 64
HOST_LENGTH = 255
FACET_LENGTH = 200
CALL_SITE_LENGTH = 200
ERROR_LENGTH = 200


class Resolution(models.IntegerChoices):
    """Length of a bucket in minutes."""

    FIVE_MINUTES = 5, _("5 minutes")
    HOUR = 60, _("hour")
    DAY = 1440, _("day")

    @property
    def length(self) -> timedelta:
        return timedelta(minutes=self.value)

    def start_of(self, moment: datetime) -> datetime:
        """The start, in UTC, of the bucket that `moment` is in; days are UTC's."""
        seconds = self.value * 60
        start = moment.timestamp() // seconds * seconds
        return datetime.fromtimestamp(start, timezone.utc)


if TYPE_CHECKING:
    _Field = models.Field[Any, Any]
    _CountField = models.PositiveBigIntegerField[int, int]
    _SecondsField = models.FloatField[float, float]
    _TextField = models.CharField[str, str]
else:
    # Django's own take no type parameters when they run.
    _Field = models.Field
    _CountField = models.PositiveBigIntegerField
    _SecondsField = models.FloatField
    _TextField = models.CharField


class _ZeroIsNull(_Field):
    """Zero in Python is NULL in the table, where it takes no room.

    Two thirds of the 43 figures of a cell are zero, so rows are half as large. What
    aggregates nothing, or only zeros, is 0. Compare with ``__gt`` and the like, which
    NULL never fulfils, and not with ``=0``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"null": True, "default": 0, **kwargs})

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        return super().get_db_prep_save(value or None, connection)

    def from_db_value(self, value: Any, *args: object) -> Any:
        return 0 if value is None else value


class CountField(_ZeroIsNull, _CountField):
    """64 bits: bytes of a day pass 2^31 easily, and so do the failures of a storm."""


class SecondsField(_ZeroIsNull, _SecondsField):
    """A duration."""


HASH_LENGTH = 32


def hash_of(*texts: str) -> str:
    """Differs where `texts` do. None may have a NUL, which no column can hold."""
    names = "\0".join(texts)
    return blake2b(names.encode(), digest_size=HASH_LENGTH // 2).hexdigest()


class HashField(_TextField):
    """The hash of the fields `of`, for a unique key; set whenever a row is saved.

    Texts that differ are the same to MariaDB when only their case, accents or trailing
    spaces do, as to any database with such a collation.
    """

    def __init__(self, *args: Any, of: Sequence[str] = (), **kwargs: Any) -> None:
        self.of = tuple(of)
        fixed = {"max_length": HASH_LENGTH, "editable": False}
        super().__init__(*args, **{**kwargs, **fixed})

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        del kwargs["max_length"], kwargs["editable"]
        return name, path, args, {**kwargs, "of": self.of}

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        value = hash_of(*(getattr(model_instance, name) for name in self.of))
        setattr(model_instance, self.attname, value)
        return value
