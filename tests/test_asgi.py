from __future__ import annotations

import asyncio
from datetime import timezone

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from observed import make_outcome

from django_safecache.apps import SafeCacheConfig
from django_safecache.asgi import storing_at_shutdown
from django_safecache.ingest import Ingest
from django_safecache.models import CacheDigest
from django_safecache.recording.recorder import Recorder


@pytest.fixture
def ingest(monkeypatch, transactional_db):
    """What the process stores by, with a hit that is not stored yet."""
    recorder = Recorder()
    ingest = Ingest(
        recorder, mode="request", interval=3600, database="default", zone=timezone.utc
    )
    ingest.connect()
    monkeypatch.setattr(SafeCacheConfig, "ingest", ingest)
    recorder.observe(make_outcome(hits=1))
    yield ingest
    ingest.close()


def stored():
    return sum(CacheDigest.objects.values_list("hits", flat=True))


def told(application, *events):
    """What the server is told at each of `events`, and what had been stored then."""

    async def serve():
        server = ApplicationCommunicator(application, {"type": "lifespan"})
        answers = []
        for event in events:
            await server.send_input({"type": f"lifespan.{event}"})
            answers.append((await server.receive_output())["type"])
        await server.wait()
        return answers

    return asyncio.run(serve())


class TestStoringAtShutdown:
    def test_django_which_knows_no_lifespan(self, ingest):
        application = storing_at_shutdown(get_asgi_application())
        assert told(application, "startup", "shutdown") == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]
        assert stored() == 1

    def test_one_that_knows_it_is_told_and_stored_after_its_own_end(self, ingest):
        """Its last calls are counted as well."""
        seen = []

        async def site(scope, receive, send):
            for _ in range(2):
                event = (await receive())["type"]
                seen.append(event)
                if event == "lifespan.shutdown":
                    ingest.recorder.observe(make_outcome(hits=1))
                await send({"type": f"{event}.complete"})

        told(storing_at_shutdown(site), "startup", "shutdown")
        assert seen == ["lifespan.startup", "lifespan.shutdown"]
        assert stored() == 2

    def test_one_that_fails_at_its_start_says_so(self, ingest):
        async def site(scope, receive, send):
            await receive()
            raise LookupError("no settings")

        with pytest.raises(LookupError):
            told(storing_at_shutdown(site), "startup")
