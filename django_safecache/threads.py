"""In which thread something is done: asyncio must not wait, and the ORM has its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async

from django_safecache.loaders import Call, Loader

P = ParamSpec("P")
T = TypeVar("T")


def in_any_thread(function: Callable[P, T]) -> Callable[P, Awaitable[T]]:
    """`function`, run in any thread: not in the one that Django keeps for the ORM."""
    return sync_to_async(function, thread_sensitive=False)


def call_here(loader: Loader, keys: Sequence[Any]) -> Mapping[Any, Any]:
    return loader(keys)


def call_in_orm_thread() -> Call:
    """How to call a loader from a thread of `in_any_thread`; made where the loop runs.

    `async_to_sync` would not do: within it, asgiref takes its thread for Django's.
    """
    loop = asyncio.get_running_loop()

    def call(loader: Loader, keys: Sequence[Any]) -> Mapping[Any, Any]:
        loading = sync_to_async(loader)(keys)
        return asyncio.run_coroutine_threadsafe(loading, loop).result()

    return call
