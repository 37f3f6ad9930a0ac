from __future__ import annotations

import json
import time
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from observed import NOON, Clock

from django_safecache.recording.browser_errors import (
    MAX_CAUSES,
    MAX_FRAMES,
    MAX_PARTS,
    MAX_PLACES,
    PAGE,
    BrowserErrors,
    parse,
)
from django_safecache.recording.fingerprints import MESSAGE_LENGTH, clean
from django_safecache.recording.first_of_day import DAY_SECONDS
from django_safecache.recording.recorder import Recorder

SITE = "https://shop.example"


def reported(**fields):
    return parse(json.dumps({"message": "x", **fields}).encode())


@pytest.fixture
def recorder():
    return Recorder(clock=Clock())


def messages(recorder):
    """What was counted: scrubbed message to number."""
    snapshot = recorder.snapshot()
    causes = {cause.fingerprint: cause.message for cause in snapshot.causes}
    return {causes[each.fingerprint]: each.count for each in snapshot.occurrences}


class TestParsing:
    def test_an_error_is_told_by_its_class_message_and_frames(self):
        error = reported(
            name="TypeError",
            message="cart is null",
            stack=(
                "TypeError: cart is null\n"
                f"    at Cart.total ({SITE}/static/js/cart.js:12:7)\n"
                f"    at async {SITE}/static/js/page.js:1:1\n"
            ),
        )
        assert (error.name, error.message) == ("TypeError", "cart is null")
        assert error.call_site == "/static/js/cart.js:Cart.total"
        assert error.stack == ("/static/js/cart.js:Cart.total", "/static/js/page.js")

    def test_firefox_and_safari_write_frames_in_another_way(self):
        stack = f"total@{SITE}/cart.js:12:7\n@{SITE}/page.js:1:1\nglobal code@{SITE}/"
        assert reported(stack=stack).stack == (
            "/cart.js:total",
            "/page.js",
            f"{PAGE}:global code",
        )

    def test_without_a_stack_the_source_is_the_call_site(self):
        assert reported(source=f"{SITE}/cart.js").call_site == "/cart.js"

    @pytest.mark.parametrize(
        ("source", "path"),
        [
            (f"{SITE}/js/app.55e7cbb9ba48.js?v=zq#zq", "/js/app.<n>.js"),
            (
                f"{SITE}/assets/Checkout2Form/ana@example.com/x.mjs",
                "/assets/Checkout<n>Form/<email>/x.mjs",
            ),
            (f"{SITE}/reset/MQ/cx5s2k-zq/", PAGE),
            ("https://ana:zq@shop.example/x.js", "/x.js"),
            ("blob:https://shop.example/zq", PAGE),
            ("data:text/javascript,zq", PAGE),
            ("http://[", PAGE),
            ("", PAGE),
            ("/a\u202e\x00.js", "/a .js"),
            (f"{SITE}/%7Fana%40example.com.js", "/<email>"),
        ],
    )
    def test_of_a_source_the_path_of_a_script_is_kept(self, source, path):
        assert reported(source=source).call_site == path

    def test_of_a_long_path_the_end_is_kept(self):
        path = reported(source=SITE + "/a" * 100 + "/b.js").call_site
        assert path == "/".join([*"a" * (MAX_PARTS - 1), "b.js"])

    def test_no_more_is_looked_at_than_the_script_sends(self):
        error = reported(message="a " * 2000, stack=f"at x ({SITE}/a.js:1:1)\n" * 200)
        assert len(error.message) == MESSAGE_LENGTH
        assert len(error.stack) <= MAX_FRAMES
        lines = ["no frame " * 10] * 20
        assert reported(stack="\n".join([*lines, f"at x ({SITE}/a.js)"])).stack == ()

    @pytest.mark.parametrize("name", ["<b>", "", "a b", "é", "x" * 200, "Type\nError"])
    def test_a_class_that_is_no_name_is_an_error(self, name):
        assert reported(name=name).name == "Error"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\xff\xfe",
            b"{",
            b"[]",
            b"null",
            b'"text"',
            b"{}",
            b"1" * 8000,
            b'{"message": null}',
            b'{"message": ["x"]}',
            b'{"message": "x", "stack": {}}',
            b"[" * 8000,
            b'{"message":' * 700,
        ],
    )
    def test_what_is_no_report_is_a_value_error(self, body):
        with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
            parse(body)

    @given(st.binary(max_size=500))
    def test_any_bytes_are_an_error_or_a_value_error(self, body):
        try:
            parse(body)
        except ValueError:
            return

    @given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=900))
    def test_any_texts_come_out_clean_and_bounded(self, name, source, stack):
        error = reported(name=name, source=source, stack=stack)
        for place in (error.name, error.call_site, *error.stack):
            assert place == clean(place)
            assert len(place) <= 210
        assert len(error.stack) <= MAX_FRAMES

    @pytest.mark.parametrize(
        "unit",
        ["at ", "at (", "a@", "@", "(", ":1", "at a (b:1:1)", "\n", "a ", "/", "%"],
    )
    def test_no_stack_takes_long(self, unit):
        started = time.perf_counter()
        for _ in range(20):
            reported(stack=unit * 8000, source=unit * 8000)
        # Quadratic time would be minutes; this is for a machine under load.
        assert time.perf_counter() - started < 10


class TestCounting:
    def test_numbers_values_lines_and_columns_make_no_other_problem(self, recorder):
        errors = BrowserErrors()
        for number in range(3):
            error = reported(
                name="RangeError",
                message=f"order {number} of 'ana{number}' is late",
                stack=f"at x ({SITE}/cart.js:{number}:{number})",
            )
            errors.count(recorder, error)
        assert messages(recorder) == {"order <n> of <text> is late": 3}
        (cause,) = recorder.snapshot().causes
        assert (cause.kind, cause.exception) == ("browser", "RangeError")
        facets = [facet.value for facet in recorder.snapshot().facets]
        assert facets == ["/cart.js:x"]

    def test_a_message_is_scrubbed_and_bounded(self, recorder):
        said = "password=zq \u202e\x00\ud800<b> " + "word " * 3000
        BrowserErrors().count(recorder, reported(message=said))
        (message,) = messages(recorder)
        assert message.startswith("password=<secret> <b> word word")
        assert len(message) <= MESSAGE_LENGTH

    def test_made_up_messages_end_up_as_one_problem(self, recorder):
        clock = Clock(NOON)
        errors = BrowserErrors(clock)
        words = [f"{a}{b}" for a in "abcdefghijklmnop" for b in "ghijklmnopqrstuvwxyz"]
        for word in words:
            errors.count(recorder, reported(message=word))
        assert len(messages(recorder)) == MAX_CAUSES + 1
        assert messages(recorder)["<other>"] == len(words) - MAX_CAUSES
        errors.count(recorder, reported(message=words[0]))
        assert messages(recorder)[words[0]] == 2
        clock.now += DAY_SECONDS
        errors.count(recorder, reported(message="a new one"))
        assert messages(recorder)["a new one"] == 1

    def test_made_up_scripts_end_up_as_one_place(self, recorder):
        clock = Clock(NOON)
        errors = BrowserErrors(clock)

        def places(words):
            found = set()
            for word in words:
                errors.count(recorder, reported(source=f"/{word}.js"))
                snapshot = recorder.snapshot()
                found |= {facet.value for facet in snapshot.facets}
                recorder.reset()
            return found

        words = [f"{a}{b}x" for a in ascii_lowercase for b in ascii_lowercase]
        known = {f"/{word}.js" for word in words[:MAX_PLACES]}
        assert places(words) == {*known, "<other>"}
        assert places(["aax", "new"]) == {"/aax.js", "<other>"}
        clock.now += DAY_SECONDS
        assert places(["new"]) == {"/new.js"}
