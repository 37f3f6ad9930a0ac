from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from django_safecache.recording import sightings, stacks

SECRET = "hunter2"


def compiled(module, filename, source, **names):
    """The function `work` of a module said to be in `filename`."""
    names = {"__name__": module, **names}
    exec(compile(source, filename, "exec"), names)  # noqa: S102
    return names["work"]


def raised(function):
    """In a thread of its own: what runs the tests may be handling an exception."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).exception()


def text_of(error):
    return stacks.of_exception(error, error.__traceback__)


CALLING = "def work():\n    password = 'hunter2'\n    return call()"


class TestFrames:
    def test_they_are_told_by_path_line_and_function_outermost_first(self):
        work = compiled(
            "shop.orders", "/home/ana/site/shop/orders.py", CALLING, call=sys._getframe
        )
        here = compiled("shop", "/home/ana/site/shop/__init__.py", CALLING, call=work)
        told = stacks.of_call(here()).splitlines()
        assert told[-2:] == [
            "  shop/__init__.py:3 in work",
            "  shop/orders.py:3 in work",
        ]

    @pytest.mark.parametrize(
        ("module", "filename", "expected"),
        [
            ("__main__", "/home/ana/manage.py", "manage.py"),
            ("shop", "C:\\home\\ana\\shop.py", "shop.py"),
            ("another.name", "/home/ana/site/shop/orders.py", "orders.py"),
            ("shop.\x1b[31morders", "/home/ana/x\x1b[31m\ny.py", "x [31m y.py"),
        ],
    )
    def test_the_directory_of_the_installation_is_never_told(
        self, module, filename, expected
    ):
        work = compiled(module, filename, CALLING, call=sys._getframe)
        told = stacks.of_call(work())
        assert told.splitlines()[-1] == f"  {expected}:3 in work"
        assert "home" not in told

    def test_neither_source_nor_locals_are_told(self):
        work = compiled("shop", "/srv/shop.py", CALLING, call=sys._getframe)
        assert SECRET not in stacks.of_call(work())

    def test_frames_that_are_not_the_sites_are_counted(self):
        error = raised(lambda: json.loads("{"))
        told = text_of(error).splitlines()
        assert told[-3] == "  ... 2 of json"
        assert told[-2].startswith("  json/decoder.py:")
        assert told[-1].startswith("json.decoder.JSONDecodeError: Expecting property")

    def test_a_call_without_any_code_of_the_sites_says_nothing(self):
        assert stacks.of_call(None) == ""

    def test_of_endless_recursion_both_ends_are_told(self):
        source = "def work():\n    again()\ndef again():\n    work()"
        told = text_of(raised(compiled("endless", "/srv/endless.py", source)))
        assert len(told.splitlines()) < 50
        assert len(told) <= stacks.MAX_LENGTH


class TestExceptions:
    def test_the_chain_is_told_first_things_first(self):
        def work():
            try:
                raise KeyError("ana@example.com")
            except KeyError as error:
                raise ValueError("order 17 is gone") from error

        told = [line for line in text_of(raised(work)).splitlines() if line[0] != " "]
        assert told == [
            "builtins.KeyError: <text>",
            "-- was the cause of --",
            "builtins.ValueError: order <n> is gone",
        ]

    def test_what_was_being_handled_is_told_unless_it_is_suppressed(self):
        def work(suppress):
            try:
                raise KeyError
            except KeyError:
                if suppress:
                    raise ValueError from None
                raise ValueError  # noqa: B904

        assert "-- while it was handled --" in text_of(raised(lambda: work(False)))
        assert "KeyError" not in text_of(raised(lambda: work(True)))

    def test_a_chain_that_leads_to_itself_ends(self):
        one, other = ValueError("one"), ValueError("other")
        one.__cause__, other.__cause__ = other, one
        assert text_of(one).count("ValueError") == 2

    def test_one_that_cannot_be_printed_is_told_by_its_class(self):
        class Unprintable(Exception):
            def __str__(self):
                raise RuntimeError

        assert text_of(Unprintable()).endswith("Unprintable: <cannot be printed>")

    def test_no_text_is_longer_than_the_bound(self):
        error = None
        for _ in range(100):
            following = ValueError("words " * 1000)
            following.__cause__ = error
            error = following
        assert len(text_of(error)) <= stacks.MAX_LENGTH


class TestSightings:
    def test_here_is_where_it_is_called(self):
        seen = sightings.here()
        assert seen.call_site == f"{__name__}:{seen.call_site.partition(':')[2]}"
        assert "test_here_is_where_it_is_called" in seen.sample().splitlines()[-1]
