"""`count_exceptions` in the processor chains that sites have."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import threading

import pytest
import structlog
from observed import Clock, make_outcome
from structlog.stdlib import ProcessorFormatter

from django_safecache.memcached.outcomes import observers
from django_safecache.recording.log_handler import DigestHandler
from django_safecache.recording.recorder import Recorder
from django_safecache.recording.structlog_processor import count_exceptions


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder(clock=Clock())
    monkeypatch.setattr(DigestHandler, "recorder", recorder)
    return recorder


@pytest.fixture(autouse=True)
def _structlog_as_it_was():
    yield
    structlog.reset_defaults()


@pytest.fixture
def handlers():
    """Attach handlers to the logger ``shop``, for this test."""
    logger = logging.getLogger("shop")
    yield logger.addHandler
    logger.handlers.clear()


def counted(recorder):
    return sum(totals.count for totals in recorder.snapshot().occurrences)


def native(*processors):
    """structlog without `logging`; returns what it writes to."""
    output = io.StringIO()
    structlog.configure(
        processors=[
            *(processors or [count_exceptions]),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(output),
    )
    return output


def stdlib(*processors, wrapper_class=structlog.stdlib.BoundLogger):
    structlog.configure(
        processors=list(processors),
        wrapper_class=wrapper_class,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def fail(log, *args, **kwargs):
    try:
        raise ValueError("order 17 is empty")
    except ValueError as error:
        log(*args, **{k: error if v is fail else v for k, v in kwargs.items()})


class TestNative:
    @pytest.mark.parametrize("level", ["error", "exception", "critical", "fatal"])
    def test_exceptions_are_counted_at_the_levels_of_errors(self, recorder, level):
        native()
        fail(getattr(structlog.get_logger(), level), "failed", exc_info=True)
        assert counted(recorder) == 1

    @pytest.mark.parametrize("level", ["debug", "info", "warning"])
    def test_below_they_are_not(self, recorder, level):
        native()
        fail(getattr(structlog.get_logger(), level), "failed", exc_info=True)
        assert counted(recorder) == 0

    def test_the_level_may_be_a_number(self, recorder):
        native()
        fail(structlog.get_logger().log, logging.ERROR, "failed", exc_info=True)
        assert counted(recorder) == 1

    def test_exc_info_may_be_the_exception_or_a_tuple(self, recorder):
        native()
        logger = structlog.get_logger()
        fail(logger.error, "failed", exc_info=fail)
        error = KeyError("x")
        logger.error("failed", exc_info=(KeyError, error, None))
        assert counted(recorder) == 2

    @pytest.mark.parametrize(
        "exc_info", [False, None, "text", 7, (None, None, None), (1, 2)]
    )
    def test_what_is_no_exception_is_not_counted(self, recorder, exc_info):
        event = {"event": "failed", "exc_info": exc_info}
        assert count_exceptions(None, "error", event) is event
        assert counted(recorder) == 0

    def test_what_cannot_be_compared_is_no_exception(self, recorder):
        class Incomparable:
            def __eq__(self, other):
                raise RuntimeError

            __hash__ = None

        event = {"event": "failed", "exc_info": Incomparable()}
        assert count_exceptions(None, "error", event) is event

    def test_true_where_nothing_was_raised_is_not_counted(self, recorder):
        # In a thread of its own: whoever runs the test may be handling something.
        event = {"event": "failed", "exc_info": True}
        thread = threading.Thread(target=count_exceptions, args=(None, "error", event))
        thread.start()
        thread.join()
        assert counted(recorder) == 0

    def test_an_error_without_an_exception_is_not_counted(self, recorder):
        native()
        structlog.get_logger().error("failed")
        assert counted(recorder) == 0

    def test_the_event_goes_on_as_it_came(self, recorder):
        output = native()
        fail(structlog.get_logger().error, "failed", order=17, exc_info=True)
        with_it = output.getvalue()
        output = native(lambda logger, name, event: event)
        fail(structlog.get_logger().error, "failed", order=17, exc_info=True)
        assert with_it == output.getvalue()
        assert "ValueError: order 17 is empty" in with_it

    def test_the_cause_and_call_site_are_those_of_the_exception(self, recorder):
        native()
        fail(structlog.get_logger().error, "failed", exc_info=True)
        snapshot = recorder.snapshot()
        (cause,) = snapshot.causes
        assert (cause.kind, cause.exception, cause.message) == (
            "application",
            "builtins.ValueError",
            "order <n> is empty",
        )
        assert [facet.value for facet in snapshot.facets] == [f"{__name__}:fail"]

    def test_this_packages_own_events_are_not_counted(self, recorder):
        """Its loggers have no name where structlog prints by itself."""

        class Broken:
            def observe(self, outcome):
                raise ValueError("x")

        output = native()
        broken = Broken()
        observers.connect(broken)
        observers.observe(make_outcome())
        observers.disconnect(broken)
        assert "event='observer_failed'" in output.getvalue()
        assert counted(recorder) == 0

    def test_coroutines_count_as_functions_do(self, recorder):
        native()

        async def work():
            try:
                await asyncio.sleep(0)
                raise ValueError("x")
            except ValueError:
                await structlog.get_logger().aexception("failed")

        async def both():
            await asyncio.gather(work(), work())

        asyncio.run(both())
        assert counted(recorder) == 2


class TestStandardLibrary:
    def test_one_that_reaches_the_handler_too_is_counted_once(self, recorder, handlers):
        stdlib(
            structlog.stdlib.filter_by_level,
            count_exceptions,
            structlog.stdlib.render_to_log_kwargs,
        )
        handlers(DigestHandler())
        fail(structlog.get_logger("shop").exception, "failed")
        assert counted(recorder) == 1

    def test_so_is_one_that_a_formatter_renders(self, recorder, handlers):
        """The processor in both chains, the handler, and two that format."""
        stdlib(count_exceptions, ProcessorFormatter.wrap_for_formatter)
        handlers(DigestHandler())
        for _ in range(2):
            handler = logging.StreamHandler(io.StringIO())
            handler.setFormatter(
                ProcessorFormatter(
                    processors=[
                        ProcessorFormatter.remove_processors_meta,
                        structlog.dev.ConsoleRenderer(),
                    ],
                    foreign_pre_chain=[count_exceptions],
                )
            )
            handlers(handler)
        fail(structlog.get_logger("shop").exception, "failed")
        assert counted(recorder) == 1
        fail(logging.getLogger("shop").exception, "failed")
        assert counted(recorder) == 2

    def test_a_formatter_alone_counts_what_django_logs(self, recorder, handlers):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(
            ProcessorFormatter(
                processor=structlog.dev.ConsoleRenderer(),
                foreign_pre_chain=[count_exceptions],
            )
        )
        handlers(handler)
        fail(logging.getLogger("shop").error, "failed", exc_info=True)
        fail(logging.getLogger("shop").warning, "failed", exc_info=True)
        assert counted(recorder) == 1

    @pytest.mark.parametrize(
        "name", ["django_safecache", "django.security.DisallowedHost"]
    )
    def test_some_loggers_are_not_counted(self, recorder, name):
        stdlib(count_exceptions, structlog.stdlib.render_to_log_kwargs)
        fail(structlog.get_logger(name).exception, "failed")
        assert counted(recorder) == 0

    def test_the_logger_for_coroutines_counts(self, recorder):
        stdlib(
            count_exceptions,
            structlog.stdlib.render_to_log_kwargs,
            wrapper_class=structlog.stdlib.AsyncBoundLogger,
        )

        async def work():
            try:
                raise ValueError("x")
            except ValueError:
                await structlog.get_logger("shop").exception("failed")

        asyncio.run(work())
        assert counted(recorder) == 1


class TestHarmlessness:
    def test_without_a_recorder_nothing_happens(self, monkeypatch):
        monkeypatch.setattr(DigestHandler, "recorder", None)
        native()
        fail(structlog.get_logger().exception, "failed")

    def test_an_exception_that_cannot_be_printed_is_still_logged(self, recorder):
        class UnprintableError(Exception):
            def __str__(self):
                raise RuntimeError

        output = native()
        try:
            raise UnprintableError
        except UnprintableError:
            structlog.get_logger().error("failed", exc_info=sys.exc_info())
        assert "failed" in output.getvalue()
        assert counted(recorder) == 1
