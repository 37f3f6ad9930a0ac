"""An exception that the site logs becomes one occurrence of a problem."""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from types import TracebackType

from django_safecache.memcached.failures import errno_of
from django_safecache.recording import sightings
from django_safecache.recording.fingerprints import Cause
from django_safecache.recording.messages import class_name, told
from django_safecache.recording.recorder import Recorder

KIND = "application"
SAME_SECONDS = 60.0
"""For so long the same object is the same occurrence: it is logged where it is caught,
raised again, and logged by Django. Later it is one that the site keeps and raises."""

# Client errors that Django answers with 400, and anybody can cause any number of.
_NOT_COUNTED = ("django_safecache", "django.security")
_MARK = "_django_safecache_counted"
_ATTRIBUTES = vars(BaseException)["__dict__"].__get__


class _Inside(threading.local):
    counting = False


_inside = _Inside()


def is_counted(logger_name: object) -> bool:
    """Whether what is logged under this name is to be counted.

    Not this package's own events, nor Django's ``django.security``.
    """
    return not any(
        logger_name == name or str(logger_name).startswith(f"{name}.")
        for name in _NOT_COUNTED
    )


def count(
    recorder: Recorder, exception: BaseException, traceback: TracebackType | None
) -> None:
    """Count `exception` once, however often it is logged on its way up the stack.

    The same object is counted again for another account, for it may be the failure of
    a thing that many wait for. Never raises, and counts nothing that is logged while it
    counts: reading the account is the site's code, and may log an error itself.
    """
    if _inside.counting:
        return
    _inside.counting = True
    try:
        account = recorder.account()
        if not _is_first(exception, account):
            return
        recorder.occurred(
            cause_of_exception(recorder, exception),
            partial(sightings.of_exception, exception, traceback),
            account=account,
        )
    except Exception:  # a class of the site's may do anything; its logging goes on
        return
    finally:
        _inside.counting = False


def cause_of_exception(recorder: Recorder, exception: BaseException) -> Cause:
    """The cause that `exception` is an occurrence of."""
    return recorder.causes.of(
        KIND, class_name(exception), errno_of(exception), told(exception)
    )


def _is_first(exception: BaseException, account: str) -> bool:
    """Whether `exception` has not been counted for `account`; now it has.

    Exceptions cannot be referred to weakly, so it is left on them: as numbers, because
    the site may make JSON of its exceptions' attributes, or pickle them.
    """
    # A copy is marked as its original is, and is raised in another thread or process.
    this = (os.getpid(), id(exception))
    # Of the account no more than what tells it from another, in this process.
    whose = hash(account) or 1 if account else 0
    now = time.monotonic()
    attributes = _ATTRIBUTES(exception)
    match attributes.get(_MARK):
        case (*marked, int(known), float(at)) if tuple(marked) == this:
            same = whose == known or 0 in (whose, known)
            if same and now - at < SAME_SECONDS:
                return False
    attributes[_MARK] = (*this, whose, now)
    return True
