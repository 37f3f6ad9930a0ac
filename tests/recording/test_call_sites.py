from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

from django_safecache.recording import call_sites


def frame_of(module, filename, call=lambda: sys._getframe(1)):
    """A frame of a function `work` in a module said to be in `filename`."""
    names = {"__name__": module, "call": call}
    exec(compile("def work():\n    return call()", filename, "exec"), names)  # noqa: S102
    return names["work"]


def calling(function):
    """A function of this module that calls `function`."""

    def here():
        return function()

    return here


class TestOfFrame:
    def test_it_is_the_innermost_frame_of_the_sites_own_code(self):
        site = call_sites.of_frame(sys._getframe())
        module, _, function = site.partition(":")
        assert module == __name__
        assert function.endswith("test_it_is_the_innermost_frame_of_the_sites_own_code")

    def test_the_machinery_and_libraries_are_passed_over(self):
        work = lambda: sys._getframe(1)  # noqa: E731
        for module, filename in [
            ("json.decoder", json.__file__),
            ("requests.api", "/venv/lib/site-packages/requests/api.py"),
            ("django.views", "/src/django/django/views.py"),
            ("django_safecache.backend", "/src/django_safecache/backend.py"),
            ("weird", "<string>"),
        ]:
            work = frame_of(module, filename, work)
        assert call_sites.of_frame(work()).startswith(f"{__name__}:")

    def test_an_installed_package_stands_in_for_a_site_deployed_as_one(self):
        frame = frame_of("shop.views", "/venv/lib/site-packages/shop/views.py")()
        # Cut off what is around it: the test itself is a site's own code.
        assert call_sites._first_own([frame]) == "shop.views:work"

    def test_there_may_be_none(self):
        assert call_sites.of_frame(None) == ""
        assert call_sites.of_traceback(None) == ""

    def test_a_line_number_is_not_part_of_it(self):
        first = call_sites.of_frame(sys._getframe())
        assert first == call_sites.of_frame(sys._getframe())


class TestOfTraceback:
    def test_it_is_where_the_exception_left_the_sites_own_code(self):
        try:
            json.loads("{")
        except ValueError as error:
            site = call_sites.of_traceback(error.__traceback__)
        assert site.startswith(f"{__name__}:")
        assert Path(__file__).stem not in site.partition(":")[2]

    def test_endless_recursion_is_told_by_its_innermost_frames(self):
        module = ModuleType("endless")
        source = "def again():\n    again()"
        exec(compile(source, "/srv/endless.py", "exec"), module.__dict__)  # noqa: S102
        try:
            module.again()
        except RecursionError as error:
            site = call_sites.of_traceback(error.__traceback__)
        assert site == "endless:again"
