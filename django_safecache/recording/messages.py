"""What an exception is called and says, whatever its class does to that."""

from __future__ import annotations

import builtins
import re

from django_safecache.recording.fingerprints import TEXT_LENGTH

UNPRINTABLE = "<cannot be printed>"
MAX_CHILDREN = 100
"""Exceptions of a group that are looked at."""

_COUNT = re.compile(r" \(\d+ sub-exceptions?\)")
_GROUP: type[BaseException] | tuple[()] = getattr(builtins, "BaseExceptionGroup", ())


def class_name(exception: BaseException) -> str:
    """The qualified name of its class."""
    try:
        kind = type(exception)
        return f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # a metaclass is the site's code, as are properties
        return UNPRINTABLE


def told(exception: BaseException) -> str:
    """Its own words, bounded and not yet scrubbed; of a group its children too."""
    try:
        # By str's own slicing: what __str__ returns may be of a class with another.
        text = str.__getitem__(_said(exception), slice(TEXT_LENGTH))
        return _with_children(exception, text)
    except Exception:  # __str__ is the site's code
        return UNPRINTABLE


def _with_children(exception: BaseException, text: str) -> str:
    if not isinstance(exception, _GROUP):
        return text
    # All failures of task groups are told in the same words.
    children = getattr(exception, "exceptions", ())[:MAX_CHILDREN]
    names = sorted({type(child).__qualname__ for child in children})
    text = _COUNT.sub("", text.strip().partition("\n")[0])
    return f"{text}: {', '.join(names)}"


def _said(exception: BaseException) -> str:
    args = exception.args
    numbered = len(args) == 2 and type(args[0]) is int and isinstance(args[1], str)
    # So do MySQL's drivers tell it. Within the tuple that str() makes of it the text is
    # quoted, and would be left out as a value, whatever it says.
    if numbered and "DatabaseError" in (cls.__name__ for cls in type(exception).mro()):
        return f"{args[0]} {args[1]}"
    return str(exception)
