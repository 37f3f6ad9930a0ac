"""What is looked at where a problem occurs, and only of its first occurrences."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import NamedTuple

from django_safecache.recording import call_sites, stacks


class Sighting(NamedTuple):
    """Where a problem was seen."""

    call_site: str
    """``module:function``, or whatever tells one place of the site from another."""
    sample: Callable[[], str]
    """Called at once, and only if wanted: a text of a few lines to be stored as it is.
    It is for whoever makes it to leave out values and to bound its length."""


def here() -> Sighting:
    """The call that this is called in: for a failure that raises nothing."""
    frame = sys._getframe(1)
    return Sighting(call_sites.of_frame(frame), partial(stacks.of_call, frame))


def of_exception(
    error: BaseException, traceback: TracebackType | None = None
) -> Sighting:
    """Where `error` left the site's own code, by its traceback unless one is given."""
    traceback = traceback or error.__traceback__
    return Sighting(
        call_sites.of_traceback(traceback),
        partial(stacks.of_exception, error, traceback),
    )
