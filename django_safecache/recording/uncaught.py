"""Exceptions that nobody catches: they end a command or a thread, and no logger sees
them."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from django_safecache.recording.exception_counting import count
from django_safecache.recording.recorder import Recorder


def count_uncaught(recorder: Recorder) -> None:
    """Count them from now on, and do then what was done before.

    An exit or an interrupt is none of them.
    """
    end_process, end_thread = sys.excepthook, threading.excepthook

    def process_ends(
        kind: type[BaseException],
        exception: BaseException,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exception, Exception):
            count(recorder, exception, traceback)
        end_process(kind, exception, traceback)

    def thread_ends(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, Exception):
            count(recorder, args.exc_value, args.exc_traceback)
        end_thread(args)

    sys.excepthook, threading.excepthook = process_ends, thread_ends
