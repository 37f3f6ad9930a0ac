from __future__ import annotations

import pytest
from structlog.contextvars import bound_contextvars

from django_safecache.recording.accounts import account_reader


def reader(*, contextvar="account", read=None, storage="hmac", key=b"key"):
    return account_reader(
        contextvar=contextvar, read=read, storage=storage, key=lambda: key
    )


class TestReading:
    def test_the_account_is_structlogs_context_variable(self):
        with bound_contextvars(account="acme", request_id="1"):
            assert reader(storage="plain")() == "acme"

    def test_a_callable_is_asked_instead(self):
        with bound_contextvars(account="acme"):
            assert reader(read=lambda: 17, storage="plain")() == "17"

    @pytest.mark.parametrize("nobody", [None, ""])
    def test_nobody_is_empty(self, nobody):
        assert reader(read=lambda: nobody)() == ""
        assert reader()() == ""
        assert reader(contextvar=None)() == ""

    def test_an_account_that_cannot_be_had_is_none(self):
        def broken():
            raise RuntimeError

        assert reader(read=broken)() == ""

    def test_never_means_that_nobody_is_asked(self):
        asked = []
        assert reader(read=lambda: asked.append(1), storage="never")() == ""
        assert asked == []

    def test_of_a_text_as_long_as_a_book_little_is_kept_and_it_stays_apart(self):
        long = "x" * 1_000_000
        accounts = {
            reader(read=lambda end=end: long + end, storage="plain")() for end in "ab"
        }
        assert [len(account) for account in accounts] == [200, 200]

    @pytest.mark.parametrize("storage", ["plain", "hmac"])
    def test_what_cannot_be_compared_or_printed_is_none(self, storage):
        class Strange:
            def __eq__(self, other):
                raise RuntimeError

            __hash__ = None

            def __str__(self):
                raise RuntimeError

        assert reader(read=Strange, storage=storage)() == ""

    def test_a_reader_that_uses_the_failing_cache_is_not_asked_by_that_again(self):
        def read():
            nested.append(account())
            return "acme"

        nested = []
        account = reader(read=read, storage="plain")
        assert account() == "acme"
        assert nested == [""]
        assert account() == "acme"


class TestHiding:
    def test_an_hmac_tells_accounts_apart_and_does_not_show_them(self):
        one, other = (reader(read=lambda name=name: name)() for name in ("acme", "bar"))
        assert one != other
        assert "acme" not in one

    def test_an_hmac_depends_on_the_key(self):
        one, other = (reader(read=lambda: "acme", key=key)() for key in (b"1", b"2"))
        assert one != other

    def test_an_account_that_is_no_valid_text_is_hidden_too(self):
        assert len(reader(read=lambda: "\ud800")()) == 32
