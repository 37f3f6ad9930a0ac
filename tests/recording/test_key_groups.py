"""The group of a key, by a table and by the plain rule that it is to follow."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_safecache.recording.key_groups import first_match

LAST = chr(sys.maxunicode)
# Few of them, so that keys have what patterns ask for.
LETTERS = "ab/.\n" + LAST
PIECES = [
    "^",
    "a",
    "b",
    "/",
    r"\.",
    ".",
    "a?",
    "b*",
    "/{2}",
    "a{,1}",
    "{",
    "[ab]",
    "(a)",
]
PIECES += ["(?:a|b)", "|", "$", r"\d", r"\Z", r"\b", "(?=b)", "(?i:A)", "(?#c)?"]
texts = st.text(LETTERS, max_size=4)
expressions = st.one_of(
    texts.map(re.escape).map("^{}".format),
    texts.map(re.escape),
    # Of everything, what looks like a beginning and is none included.
    st.lists(
        st.sampled_from(PIECES),
        max_size=5,
    ).map("".join),
)
flags = st.sampled_from([0, 0, 0, re.I, re.M, re.S, re.X, re.A])


@st.composite
def patterns(draw):
    try:
        return re.compile(draw(expressions), draw(flags))
    except re.error:
        return re.compile("^a")


def numbered(patterns):
    return [(pattern, str(number)) for number, pattern in enumerate(patterns)]


def compiled(*expressions):
    return [re.compile(expression) for expression in expressions]


class TestFirstMatch:
    @given(st.lists(patterns(), min_size=1, max_size=6), st.lists(texts, max_size=6))
    @example(compiled("^a|b"), ["b", "cb"])
    @example(compiled("^ab?", "^a"), ["a", "ab"])
    @example(compiled("^ab(?#c)?", "^ab(?#c)*", "^a"), ["a", "ab"])
    @example(compiled("^ab", "^a", "^abc", "^"), ["abc", "a", "b", ""])
    @example(compiled("b", "^a", "^ab"), ["ab", "a", "b"])
    @example(compiled(f"^a{LAST}", f"^{LAST}"), [f"a{LAST}b", "b", LAST, f"a{LAST}"])
    @example(compiled(r"^a\.", "^a"), ["a.b", "ab"])
    def test_it_is_the_first_pattern_in_their_order_that_is_found_in_the_key(
        self, patterns, keys
    ):
        groups = numbered(patterns)
        plain = [
            next((name for pattern, name in groups if pattern.search(key)), "")
            for key in keys
        ]
        group_of = first_match(groups)
        assert group_of(keys) == plain
        assert group_of(keys) == plain  # what it has found out is not forgotten wrongly

    @pytest.mark.parametrize("expression", ["^1", "1", r"^\d"])
    def test_a_key_that_is_no_text_is_in_the_group_of_its_text(self, expression):
        group_of = first_match([(re.compile(expression), "one")])
        keys = [1, True, 1.0, "1", (1, 2), b"1", None]
        found = [re.search(expression, str(key)) for key in keys]
        assert group_of(keys) == ["one" if each else "" for each in found]

    def test_no_key_has_no_group(self):
        assert first_match([(re.compile("^a"), "A")])([]) == []

    def test_without_patterns_nothing_is_divided(self):
        assert first_match([]) is None
