from __future__ import annotations

import pytest

from django_safecache.recording.messages import UNPRINTABLE, class_name, told
from django_safecache.recording.stacks import of_exception


class Refusing:
    """Of a class, or an object: whatever is asked of it raises."""

    def __get__(self, instance, owner=None):
        raise RuntimeError

    def __set__(self, instance, value):
        raise RuntimeError


class Nameless(type):
    def __getattribute__(cls, name):
        if name == "__qualname__":
            raise RuntimeError
        return super().__getattribute__(name)


class NastyError(OSError):
    args = errno = strerror = exceptions = Refusing()
    __cause__ = __context__ = __suppress_context__ = __traceback__ = Refusing()

    def __str__(self):
        raise ValueError


class NamelessError(Exception, metaclass=Nameless):
    pass


class TestAnyException:
    @pytest.mark.parametrize(
        ("error", "name", "text"),
        [
            (NastyError(), f"{__name__}.NastyError", UNPRINTABLE),
            (NamelessError("said"), UNPRINTABLE, "said"),
        ],
    )
    def test_none_makes_its_telling_fail(self, error, name, text):
        assert (class_name(error), told(error)) == (name, text)
        assert of_exception(error, None) == f"{name}: {text}"
