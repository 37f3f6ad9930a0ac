"""For ASGI servers that end by a signal: the last counts are stored before that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async

from django_safecache.apps import SafeCacheConfig

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def storing_at_shutdown(application: Application) -> Application:
    """`application` with ASGI's lifespan, which Django does not have.

    When the server says that it shuts down, and has answered all requests, what was
    counted since the last time is stored. Uvicorn ends by the signal it was sent, as it
    should, and nothing else of Python's is called then.
    """

    async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        while True:
            event = (await receive())["type"]
            if event == "lifespan.shutdown":
                ingest = SafeCacheConfig.ingest
                if ingest is not None:
                    await sync_to_async(ingest.close, thread_sensitive=False)()
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    return with_lifespan
