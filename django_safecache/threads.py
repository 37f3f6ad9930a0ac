"""In which thread something is done: asyncio must not wait, and the ORM has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import AsyncToSync, sync_to_async

from django_safecache.loaders import Call, Loader

P = ParamSpec("P")
T = TypeVar("T")


def in_any_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """`function`, run in any thread: not in the one that Django keeps for the ORM."""
    return sync_to_async(function, thread_sensitive=False)


def in_own_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """The same in a thread that nobody else uses, for what may wait for other threads:
    the event loop has only a few, and those who wait would keep the others waiting."""

    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        executor = ThreadPoolExecutor(1)
        run = sync_to_async(function, thread_sensitive=False, executor=executor)
        try:
            return await run(*args, **kwargs)
        finally:
            executor.shutdown(wait=False)

    return call


def call_in_orm_thread() -> Call:
    """How to call a loader from a thread of `in_own_thread`; made where the loop runs.

    `async_to_sync` would not do: within it, asgiref takes its thread for Django's. And
    where a sync middleware or view is around, that is the one which waits in its own
    `async_to_sync`; asgiref knows it by a variable of the task, which is handed over.
    """
    loop = asyncio.get_running_loop()
    executor = getattr(AsyncToSync.executors, "current", None)

    async def run(loader: Loader, keys: Sequence[Any]) -> Mapping[Any, Any]:
        if executor is not None:
            AsyncToSync.executors.current = executor
        return await sync_to_async(loader)(keys)

    def call(loader: Loader, keys: Sequence[Any]) -> Mapping[Any, Any]:
        return asyncio.run_coroutine_threadsafe(run(loader, keys), loop).result()

    return call
