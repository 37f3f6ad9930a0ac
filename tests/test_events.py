"""The package's own log."""

from __future__ import annotations

import pytest
import structlog

from django_safecache.events import get_logger


@pytest.fixture
def configure():
    yield structlog.configure
    structlog.reset_defaults()


def test_a_processor_of_the_site_that_raises_breaks_nothing(configure):
    """Events are logged in the middle of a cache call."""

    def broken(logger, level, event):
        raise KeyError("request_id")

    configure(processors=[broken])
    assert get_logger().warning("breaker_opened", server="10.0.0.1:11211") is None


def test_the_sites_processors_get_the_events(configure):
    with structlog.testing.capture_logs() as events:
        configure(processors=structlog.get_config()["processors"])
        get_logger().warning("breaker_opened", server="10.0.0.1:11211")
    assert events == [
        {
            "event": "breaker_opened",
            "log_level": "warning",
            "server": "10.0.0.1:11211",
        }
    ]
