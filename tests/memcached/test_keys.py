from __future__ import annotations

from django.core.cache.backends.base import memcache_key_warnings
from hypothesis import given
from hypothesis import strategies as st

from django_safecache.memcached.keys import (
    encode_key,
    encode_keys,
    problem_of,
    texts_of,
)

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["k" * 250, "k" * 251, "é" * 125, "é" * 126, "a b", "a\n", "", "\x7f", "\ud800"]
)


class TestEncodeKeys:
    @given(st.lists(texts, max_size=8))
    def test_all_at_once_says_what_one_by_one_says(self, made):
        encoded = encode_keys(made)
        if any(problem_of(key) for key in made):
            assert encoded is None
        else:
            assert encoded == [key.encode() for key in made]

    @given(texts, st.sampled_from(["", ":1:", "é"]), st.integers(0, 9))
    def test_one_key_is_as_many_of_one(self, key, prefix, spent):
        one = encode_key(prefix + key, spent_bytes=spent)
        many = encode_keys([key], prefix=prefix, spent_bytes=spent)
        assert [one] == (many or [None])

    @given(texts)
    def test_whatever_django_warns_of_is_a_problem(self, key):
        if list(memcache_key_warnings(key)):
            assert problem_of(key) is not None

    @given(st.lists(texts | st.integers()), st.sampled_from(["", ":1:", "é"]))
    def test_the_prefix_goes_before_each_key(self, keys, prefix):
        made = [prefix + str(key) for key in keys]
        assert encode_keys(texts_of(keys), prefix=prefix) == encode_keys(made)

    def test_bytes_count_not_characters(self):
        assert problem_of("é" * 125) is None
        assert "252 bytes" in problem_of("é" * 126)

    def test_spent_bytes_are_taken_from_the_key(self):
        assert encode_keys(["k" * 250], spent_bytes=1) is None
        assert encode_keys(["k" * 249], spent_bytes=1) == [b"k" * 249]
