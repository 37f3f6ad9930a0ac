"""For ASGI servers that end by a signal: the last counts are stored before that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.sync import sync_to_async

from django_safecache.apps import SafeCacheConfig

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def storing_at_shutdown(application: Application) -> Application:
    """`application`, which stores what it counted when the server shuts down.

    That is told by ASGI's lifespan, when all requests have been answered. Uvicorn ends
    by the signal it was sent, as it should; nothing else of Python's is called then. An
    application that knows the lifespan is told of it; Django's does not.
    """

    async def storing(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        is_known = False

        async def receive_known() -> Message:
            nonlocal is_known
            is_known = True
            return await receive()

        async def send_when_stored(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await _store()
            await send(message)

        try:
            await application(scope, receive_known, send_when_stored)
        except Exception:  # so says one that does not know it, at once
            if is_known:
                raise
        if not is_known:
            await _lifespan(receive, send_when_stored)

    return storing


async def _lifespan(receive: Receive, send: Send) -> None:
    """That of an application which has nothing to do for it."""
    event = ""
    while event != "lifespan.shutdown":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})


async def _store() -> None:
    ingest = SafeCacheConfig.ingest
    if ingest is not None:
        await sync_to_async(ingest.close, thread_sensitive=False)()
