from __future__ import annotations

from datetime import date, timedelta
from html.parser import HTMLParser

import pytest
from django.utils import translation
from stored import at, counted, occurred, reporting

from django_safecache.digest.contents import compose
from django_safecache.digest.rendering import SIZE_LIMIT, render

pytestmark = pytest.mark.django_db

DAY = date(2025, 1, 14)
NOON = at(2025, 1, 14, 12)
LONG_AGO = NOON - timedelta(days=40)


class Markup(HTMLParser):
    """The start tags of a page, and the text of its body."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def bad_day():
    reporting(at(2025, 1, 1), at(2025, 1, 16))
    counted(NOON, server="10.0.0.1:11211", hits=900, misses=100, epipe=1000)
    counted(NOON, server="10.0.0.2:11211", hits=1, unavailable=421, timeout=204)
    counted(NOON, server="", calls=3, loaded=400, duration_sum=1.25)
    counted(NOON - timedelta(days=1), hits=450, misses=50)
    for number in range(3):
        occurred(NOON, message=f"new {number}")
    occurred(NOON, message="back again", first_seen=LONG_AGO, regressed_at=NOON)


class TestSubject:
    def test_it_counts_problems_errors_and_servers(self, settings):
        settings.SAFECACHE = {"DIGEST": {"ENVIRONMENT": "prod"}}
        bad_day()
        assert render(compose(DAY)).subject == (
            "[prod] safecache Tue 14 Jan: 3 new, 1 regressed, 1,204 errors on 2 servers"
        )

    def test_no_errors_and_no_telemetry_are_told_apart(self):
        assert render(compose(DAY)).subject == "safecache Tue 14 Jan: no telemetry"
        counted(NOON, hits=5)
        assert render(compose(DAY)).subject == "safecache Tue 14 Jan: no errors"

    def test_exceptions_of_the_site_are_counted_apart(self):
        occurred(NOON, kind="application", server="", count=57)
        assert render(compose(DAY)).subject == (
            "safecache Tue 14 Jan: no telemetry, 1 new, 57 exceptions"
        )

    def test_an_environment_cannot_add_a_header(self, settings):
        settings.SAFECACHE = {"DIGEST": {"ENVIRONMENT": "prod\r\nBcc: all@example.com"}}
        assert render(compose(DAY)).subject == (
            "[prod Bcc: all@example.com] safecache Tue 14 Jan: no telemetry"
        )

    def test_it_is_english_whatever_language_is_active(self):
        with translation.override("de"):
            assert render(compose(DAY)).subject.startswith("safecache Tue 14 Jan")


class TestText:
    def test_it_tells_the_numbers_against_the_day_before(self):
        bad_day()
        lines = render(compose(DAY)).text.splitlines()
        numbers = [
            line.split() for line in lines if line.startswith(("Hit", "  epipe"))
        ]
        assert numbers == [
            ["Hits", "901", "450", "+100", "%"],
            ["Hit", "ratio", "90.0", "%", "90.0", "%"],
            ["epipe", "1,000", "0"],
            ["Hits", "▁▁▁▁▁▁▁▁▁▁▁▁█▁▁▁▁▁▁▁▁▁▁▁", "most", "901,", "from", "12:00"],
        ]

    def test_its_parts_come_in_the_order_of_their_use(self):
        bad_day()
        text = render(compose(DAY)).text
        parts = [
            "3 new, 1 regressed",
            "Hits",
            "HOUR BY HOUR",
            "SERVERS",
            "New (3)",
            "Regressed (1)",
            "WHAT THE FAILURES COST",
        ]
        places = [text.index(part) for part in parts]
        assert places == sorted(places)

    def test_a_problem_is_told_with_all_that_is_known(self):
        reporting(LONG_AGO, NOON)
        occurred(
            NOON,
            errno=32,
            count=812,
            accounts=["a", "b"],
            call_sites=["campfire.views.room"],
            first_seen=LONG_AGO,
        )
        assert (
            "Escalating (1)\n"
            "\n"
            "* 812 x epipe builtins.BrokenPipeError (errno 32)\n"
            "  Broken pipe\n"
            "  ▁▁▁▁▁▁▁▁▁▁▁▁▁▁█ usually 0.0 a day\n"
            "  first seen 2024-12-05 12:00, last seen 2025-01-14 12:00\n"
            "  2 accounts\n"
            "  servers: 10.0.0.1:11211\n"
            "  call sites: campfire.views.room\n"
        ) in render(compose(DAY)).text

    def test_it_says_what_the_failures_cost(self):
        bad_day()
        assert (
            "421 keys unavailable: no server answered for them. 400 values loaded"
            " from the\ndatabase instead, in 3 calls of loaders that took 1.25 s.\n"
        ) in render(compose(DAY)).text

    def test_it_says_that_nothing_was_lost(self):
        counted(NOON, hits=5)
        text = render(compose(DAY)).text
        assert "Nothing: the cache answered for every key." in text
        assert "PROBLEMS\nNone.\n" in text

    def test_it_says_that_nothing_is_known(self):
        text = render(compose(DAY)).text
        assert "NO TELEMETRY: no process reported on this day." in text
        assert "WHAT THE FAILURES COST" not in text

    def test_it_says_for_how_many_hours_nothing_is_known(self):
        reporting(at(2025, 1, 14, 6), at(2025, 1, 14, 18))
        assert "No process reported in 11 of the 24 hours" in render(compose(DAY)).text

    def test_times_are_local(self, settings):
        settings.SAFECACHE = {"DIGEST": {"TIME_ZONE": "Europe/Berlin"}}
        occurred(NOON)
        text = render(compose(DAY)).text
        assert "2025-01-14 00:00 to 2025-01-15 00:00 Europe/Berlin, 24 hours" in text
        assert "first seen 2025-01-14 13:00" in text


class TestHtml:
    def test_what_servers_and_exceptions_say_is_text(self):
        hostile = "<script>alert(1)</script><img src=x onerror=alert(2)>"
        counted(NOON, server=hostile, alias=hostile, epipe=1)
        occurred(NOON, exception=hostile, message=hostile, call_sites=[hostile])
        markup = Markup(render(compose(DAY)).html)
        assert {tag for tag, _ in markup.tags}.isdisjoint({"script", "img", "a"})
        assert not any(
            name.startswith("on") or name in ("src", "href", "style")
            for _, attributes in markup.tags
            for name in attributes
        )
        assert markup.text.count(hostile) == 5

    def test_it_tells_what_the_text_tells(self):
        bad_day()
        rendered = render(compose(DAY))
        page = " ".join(Markup(rendered.html).text.split())
        for told in ("1,204", "+100 %", "Regressed (1)", "back again", "400 values"):
            assert told in rendered.text
            assert told in page


class TestSize:
    def test_a_day_full_of_the_longest_problems_is_not_clipped(self):
        places = [f"{number:02}" + "'" * 198 for number in range(10)]
        for number in range(120):
            occurred(
                NOON,
                message="'" * 500,
                exception=f"{number:03}" + "漢" * 190,
                server="漢" * 250,
                call_sites=places,
            )
            counted(NOON, server=f"{number:03}" + "<" * 250, epipe=1)
        rendered = render(compose(DAY))
        assert len(rendered.html.encode()) <= SIZE_LIMIT
        assert len(rendered.text.encode()) <= SIZE_LIMIT
        assert 0 < rendered.html.count('<div class="problem">') < 50
        assert "more." in rendered.text
        assert rendered.subject == (
            "safecache Tue 14 Jan: 120 new, 120 errors on 120 servers"
        )

    def test_what_strangers_make_up_leaves_room_for_the_site_s_own(self):
        for number in range(60):
            occurred(
                NOON,
                kind="browser",
                exception="Error",
                message=(f"{number} " + "'" * 500)[:500],
                call_sites=[f"{number:02}" + "'" * 198 for number in range(10)],
                count=50,
            )
        occurred(NOON, kind="application", exception="shop.Lost", count=7)
        html = render(compose(DAY)).html
        assert 0 < html.count('<div class="problem">') < 50
        assert html.count("shop.Lost") == 1

    def test_those_left_out_are_counted(self):
        for number in range(60):
            occurred(NOON, message=f"number {number}")
        text = render(compose(DAY)).text
        assert text.count("builtins.BrokenPipeError") == 50
        assert "... and 10 more." in text
