from __future__ import annotations

import copy
import json
import logging
import pickle
import sys
import threading

import pytest
from django.db import OperationalError
from observed import Clock

from django_safecache.recording import exception_counting, messages
from django_safecache.recording.exception_counting import (
    SAME_SECONDS,
    cause_of_exception,
    count,
    is_counted,
)
from django_safecache.recording.fingerprints import MESSAGE_LENGTH, TEXT_LENGTH
from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.recorder import Recorder


class Account:
    """Who is served at the moment."""

    def __init__(self):
        self.current = ""

    def __call__(self):
        return self.current


@pytest.fixture
def account():
    return Account()


@pytest.fixture
def recorder(account):
    return Recorder(account=account, clock=Clock())


def counted(recorder):
    return sum(totals.count for totals in recorder.snapshot().occurrences)


def accounts(recorder):
    facets = recorder.snapshot().facets
    return sorted(facet.value for facet in facets if facet.facet == "account")


def message(recorder, exception):
    return cause_of_exception(recorder, exception).message


class TestOnce:
    def test_an_exception_that_is_logged_again_further_up_is_counted_once(
        self, recorder
    ):
        def inner():
            try:
                raise ValueError("x")
            except ValueError as error:
                count(recorder, error, error.__traceback__)
                raise

        try:
            inner()
        except ValueError as error:
            count(recorder, error, error.__traceback__)
        assert counted(recorder) == 1

    def test_two_exceptions_with_the_same_words_are_two(self, recorder):
        for _ in range(2):
            count(recorder, ValueError("x"), None)
        assert counted(recorder) == 2

    def test_the_exception_that_another_was_raised_from_is_not_counted_with_it(
        self, recorder
    ):
        error = ValueError("x")
        error.__cause__ = KeyError("y")
        count(recorder, error, None)
        assert counted(recorder) == 1

    def test_one_object_raised_for_several_accounts_counts_for_each(
        self, recorder, account
    ):
        error = ValueError("kept in a module, and raised for everybody")
        for account.current in ("acme", "globex", "globex", "initech"):
            count(recorder, error, None)
        assert counted(recorder) == 3
        assert accounts(recorder) == ["acme", "globex", "initech"]

    def test_a_log_line_without_its_account_is_the_same_occurrence(
        self, recorder, account
    ):
        error = ValueError("x")
        for account.current in ("acme", "", "acme"):
            count(recorder, error, None)
        assert counted(recorder) == 1

    def test_one_object_that_is_raised_again_later_counts_again(self, recorder):
        error = ValueError("x")
        count(recorder, error, None)
        *this, at = vars(error)[exception_counting._MARK]
        vars(error)[exception_counting._MARK] = (*this, at - SAME_SECONDS)
        count(recorder, error, None)
        assert counted(recorder) == 2

    def test_a_copy_raised_in_another_thread_counts(self, recorder):
        """Threads that share one load are given copies of its exception."""
        error = ValueError("x")
        count(recorder, error, None)
        count(recorder, copy.copy(error), None)
        assert counted(recorder) == 2

    def test_a_pickled_exception_takes_no_account_along(self, recorder, account):
        account.current = "acme"
        error = ValueError("x")
        count(recorder, error, None)
        pickled = pickle.dumps(error)
        assert b"acme" not in pickled
        count(recorder, pickle.loads(pickled), None)
        assert counted(recorder) == 2

    def test_the_site_may_make_json_of_the_attributes(self, recorder, account):
        account.current = "acme"
        error = ValueError("x")
        count(recorder, error, None)
        assert "acme" not in json.dumps(vars(error))

    def test_what_the_site_put_there_is_no_mark(self, recorder):
        error = ValueError("x")
        vars(error)[exception_counting._MARK] = {"counted": True}
        count(recorder, error, None)
        assert counted(recorder) == 1

    @pytest.mark.parametrize("name", ["errno", "__dict__", "args", "__cause__"])
    def test_one_with_a_property_that_raises(self, recorder, name):
        def broken(self):
            raise RuntimeError

        kind = type("BrokenError", (OSError,), {name: property(broken)})
        count(recorder, kind(2, "x"), None)
        assert counted(recorder) == 1

    def test_threads_count_what_each_of_them_raises(self, recorder):
        def work():
            for _ in range(100):
                count(recorder, ValueError("x"), None)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counted(recorder) == 800


class TestText:
    def test_a_huge_message_is_cut_before_anything_is_done_with_it(self, recorder):
        class HugeError(Exception):
            def __str__(self):
                return "word " * 20_000_000

        assert len(message(recorder, HugeError())) <= MESSAGE_LENGTH
        assert len(messages.told(HugeError())) == TEXT_LENGTH

    @pytest.mark.parametrize(
        "returned",
        [None, 7, b"bytes", ["list"]],
    )
    def test_one_whose_str_is_no_string_is_counted(self, recorder, returned):
        class OddError(Exception):
            def __str__(self):
                return returned

        assert message(recorder, OddError()) == "<cannot be printed>"

    def test_one_whose_str_never_ends_is_counted(self, recorder):
        class EndlessError(Exception):
            def __str__(self):
                return str(self)

        assert message(recorder, EndlessError()) == "<cannot be printed>"

    def test_a_string_of_a_class_with_methods_of_its_own_is_taken_as_a_string(
        self, recorder
    ):
        class Sly(str):
            __slots__ = ()

            def __getitem__(self, index):
                raise RuntimeError

            def strip(self, *args):
                raise RuntimeError

        class SlyError(Exception):
            def __str__(self):
                return Sly("order 17 is empty")

        assert message(recorder, SlyError()) == "order <n> is empty"

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ("Lock wait timeout exceeded", "<n> Lock wait timeout exceeded"),
            ("Duplicate entry 'ana' for key 'x'", "<n> Duplicate entry <text> for key"),
        ],
    )
    def test_what_mysql_says_behind_its_number_is_kept(self, recorder, said, expected):
        error = OperationalError(1205, said)
        assert message(recorder, error).startswith(expected)
        assert "ana" not in message(recorder, error)
        assert message(recorder, ValueError(1205, said)) == "(<n>, <text>)"

    @pytest.mark.parametrize("errno", ["ENOSPC", 2**40, True, None])
    def test_an_errno_that_is_none_is_left_out(self, recorder, errno):
        error = OSError("full")
        error.errno = errno
        assert cause_of_exception(recorder, error).errno is None

    @pytest.mark.skipif(sys.version_info < (3, 11), reason="has no groups")
    def test_groups_are_told_apart_by_what_is_in_them(self, recorder):
        words = "unhandled errors in a TaskGroup"
        one = ExceptionGroup(words, [ValueError("1"), KeyError("a")])  # noqa: F821
        same = ExceptionGroup(words, [ValueError("2"), *map(KeyError, "bcd")])  # noqa: F821
        other = ExceptionGroup(words, [OSError(32, "Broken pipe")])  # noqa: F821
        causes = [cause_of_exception(recorder, group) for group in (one, same, other)]
        assert causes[0] == causes[1]
        assert causes[0].fingerprint != causes[2].fingerprint
        assert causes[0].message == f"{words}: KeyError, ValueError"
        assert causes[2].message == f"{words}: BrokenPipeError"

    def test_other_base_exceptions_are_counted_like_any(self, recorder):
        for error in (KeyboardInterrupt(), SystemExit(3), GeneratorExit()):
            count(recorder, error, None)
        assert counted(recorder) == 3


class TestHarmlessness:
    def test_what_is_logged_while_counting_is_not_counted(self, monkeypatch):
        def account():
            logging.getLogger("shop").error("no account", exc_info=KeyError("y"))
            return "acme"

        recorder = Recorder(account=account, clock=Clock())
        monkeypatch.setattr(DigestHandler, "recorder", recorder)
        handler = DigestHandler()
        logging.getLogger("shop").addHandler(handler)
        count(recorder, ValueError("x"), None)
        logging.getLogger("shop").removeHandler(handler)
        assert counted(recorder) == 1

    def test_a_destructor_that_logs_under_the_recorders_lock_is_counted(self, recorder):
        """The garbage collector runs it in any thread, at any time."""
        with recorder._lock:
            count(recorder, ValueError("x"), None)
        assert counted(recorder) == 1

    def test_an_interrupt_while_counting_is_not_swallowed(self):
        def account():
            raise KeyboardInterrupt

        recorder = Recorder(account=account, clock=Clock())
        with pytest.raises(KeyboardInterrupt):
            count(recorder, ValueError("x"), None)
        assert not exception_counting._inside.counting


class TestLoggers:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("django.request", True),
            ("django_safecache_shop", True),
            ("django.securityx", True),
            ("", True),
            (None, True),
            ("django_safecache", False),
            ("django_safecache.ingest", False),
            ("django.security.DisallowedHost", False),
        ],
    )
    def test_which_are_counted(self, name, expected):
        assert is_counted(name) is expected
