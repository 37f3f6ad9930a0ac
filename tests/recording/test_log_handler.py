from __future__ import annotations

import gc
import logging
import logging.config
import threading

import pytest
from django.core.exceptions import SuspiciousOperation
from observed import Clock

from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.recorder import Recorder


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder(clock=Clock())
    monkeypatch.setattr(DigestHandler, "recorder", recorder)
    return recorder


@pytest.fixture
def logger():
    logger = logging.getLogger("shop.orders")
    logger.propagate = False
    logger.addHandler(DigestHandler())
    yield logger
    logger.handlers.clear()


def problems(recorder):
    snapshot = recorder.snapshot()
    counts = {totals.fingerprint: totals.count for totals in snapshot.occurrences}
    return [
        (
            cause.kind,
            cause.exception,
            cause.errno,
            cause.message,
            counts[cause.fingerprint],
        )
        for cause in snapshot.causes
    ]


def log(logger, error, level=logging.ERROR):
    try:
        raise error
    except type(error):
        logger.log(level, "failed", exc_info=True)


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError


class TestCounting:
    def test_logged_exceptions_are_grouped_and_counted(self, recorder, logger):
        log(logger, ValueError("order 17 is empty"))
        log(logger, ValueError("order 4711 is empty"))
        assert problems(recorder) == [
            ("application", "builtins.ValueError", None, "order <n> is empty", 2)
        ]

    def test_an_errno_is_kept(self, recorder, logger):
        log(logger, OSError(28, "No space left on device"))
        assert problems(recorder) == [
            (
                "application",
                "builtins.OSError",
                28,
                "[Errno <n>] No space left on device",
                1,
            )
        ]

    def test_the_call_site_is_where_it_was_raised(self, recorder, logger):
        log(logger, ValueError("x"))
        (facet,) = recorder.snapshot().facets
        assert (facet.facet, facet.value) == ("call_site", f"{__name__}:log")

    def test_a_record_that_reaches_two_handlers_is_counted_once(self, recorder, logger):
        logger.addHandler(DigestHandler())
        log(logger, ValueError("x"))
        assert [count for *_, count in problems(recorder)] == [1]

    def test_what_is_no_exception_or_no_error_is_not_counted(self, recorder, logger):
        logger.error("failed without an exception")
        logger.error("failed", exc_info=(None, None, None))
        log(logger, ValueError("x"), level=logging.WARNING)
        assert problems(recorder) == []

    def test_this_packages_own_records_are_not_counted(self, recorder):
        logger = logging.getLogger("django_safecache.ingest")
        logger.addHandler(DigestHandler())
        log(logger, ValueError("x"))
        logger.handlers.clear()
        assert problems(recorder) == []

    def test_what_django_answers_with_400_is_not_counted(self, recorder):
        """Anybody can ask for a host that does not exist, any number of times."""
        logger = logging.getLogger("django.security.DisallowedHost")
        logger.addHandler(DigestHandler())
        log(logger, SuspiciousOperation("Invalid HTTP_HOST header"))
        logger.handlers.clear()
        assert problems(recorder) == []

    @pytest.mark.parametrize("exc_info", [("no", "exception"), "text", 1, (1, 2, 3)])
    def test_a_record_with_anything_for_an_exception_does_no_harm(
        self, recorder, exc_info
    ):
        record = logging.makeLogRecord({"levelno": logging.ERROR})
        record.exc_info = exc_info
        DigestHandler().emit(record)
        assert problems(recorder) == []


class TestHarmlessness:
    def test_without_a_recorder_nothing_happens(self, logger, monkeypatch):
        monkeypatch.setattr(DigestHandler, "recorder", None)
        log(logger, ValueError("x"))

    def test_an_exception_that_cannot_be_printed_does_not_stop_logging(
        self, recorder, logger, capsys
    ):
        log(logger, UnprintableError())
        ((_, exception, _, message, count),) = problems(recorder)
        assert exception == f"{__name__}.UnprintableError"
        assert (message, count) == ("<cannot be printed>", 1)
        assert capsys.readouterr().err == ""

    def test_an_account_callable_that_logs_errors_does_not_recurse(
        self, logger, monkeypatch
    ):
        def account():
            log(logger, ValueError("no account"))
            return "acme"

        recorder = Recorder(account=account, clock=Clock())
        monkeypatch.setattr(DigestHandler, "recorder", recorder)
        log(logger, ValueError("x"))
        assert [message for *_, message, _ in problems(recorder)] == ["x"]

    def test_whoever_logs_waits_for_nobody_elses_account(self, logger, monkeypatch):
        """It may be found out under a lock that they hold."""
        asked, lock = threading.Event(), threading.Lock()

        def account():
            asked.set()
            with lock:
                return "acme"

        recorder = Recorder(account=account, clock=Clock())
        monkeypatch.setattr(DigestHandler, "recorder", recorder)
        other = threading.Thread(target=log, args=(logger, ValueError("x")))
        with lock:
            other.start()
            assert asked.wait(10)
            third = threading.Thread(target=logger.error, args=["nothing raised"])
            third.start()
            third.join(10)
            waits = third.is_alive()
        other.join()
        assert not waits
        assert len(problems(recorder)) == 1

    def test_filters_are_asked(self, recorder, logger):
        (handler,) = [each for each in logger.handlers if type(each) is DigestHandler]
        handler.addFilter(lambda record: record.name.startswith("shop."))
        log(logger, ValueError("x"))
        handler.addFilter(lambda record: False)
        log(logger, KeyError("y"))
        assert [exception for _, exception, *_ in problems(recorder)] == [
            "builtins.ValueError"
        ]

    def test_it_can_be_configured_by_its_path(self, recorder):
        handler = "django_safecache.recording.log_handler.DigestHandler"
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {"digest": {"class": handler, "level": "ERROR"}},
                "loggers": {"tests.digest": {"handlers": ["digest"]}},
            }
        )
        logger = logging.getLogger("tests.digest")
        log(logger, ValueError("x"))
        logger.handlers.clear()
        assert len(problems(recorder)) == 1


def test_a_destructor_may_log_while_a_snapshot_is_taken(recorder, logger):
    """The garbage collector runs it wherever it likes."""
    logged = 0

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            nonlocal logged
            logged += 1
            log(logger, type(f"Error{logged}", (Exception,), {})("x"))

    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(20)
    try:
        for _ in range(100):
            Cycle()
            recorder.snapshot()
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert logged == 100
    assert sum(count for *_, count in problems(recorder)) == 100
