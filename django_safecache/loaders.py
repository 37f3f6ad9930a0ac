"""Who answers for a key when the cache cannot: loaders, and which keys they serve."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from django_safecache.single_flight import PATIENCE, flights

Loader = Callable[[Sequence[Any]], Mapping[Any, Any]]
"""Takes callers' keys, returns the values it has for them. One call, one query:
it is given many keys at once, each once. A key that it leaves out has no value."""

LoaderT = TypeVar("LoaderT", bound=Loader)


class Registry:
    """Loaders by key. The longest matching prefix wins; where none matches, the first
    registered expression that matches at the start of the key."""

    def __init__(self) -> None:
        self._prefixes: dict[str, Loader] = {}
        self._longest_first: list[str] = []
        self._expressions: dict[re.Pattern[str], Loader] = {}

    def register(self, pattern: str | re.Pattern[str], loader: Loader) -> None:
        """Raises `ValueError` if `pattern` has another loader already."""
        known = self._known(pattern)
        if known.get(pattern, loader) is not loader:
            raise ValueError(
                f"{pattern!r} has a loader already: {known[pattern]!r}; "
                "a key can have only one"
            )
        known[pattern] = loader
        self._longest_first = sorted(self._prefixes, key=len, reverse=True)

    def unregister(self, pattern: str | re.Pattern[str]) -> None:
        """Forget the loader of `pattern`, if there is one: for tests."""
        self._known(pattern).pop(pattern, None)
        self._longest_first = sorted(self._prefixes, key=len, reverse=True)

    def _known(self, pattern: str | re.Pattern[str]) -> dict[Any, Loader]:
        """The loaders that are registered in the way of `pattern`."""
        return self._prefixes if isinstance(pattern, str) else self._expressions

    def loader_of(self, key: object) -> Loader | None:
        """The loader that serves the caller's `key`."""
        text = str(key)
        for prefix in self._longest_first:
            if text.startswith(prefix):
                return self._prefixes[prefix]
        for expression, loader in self._expressions.items():
            if expression.match(text):
                return loader
        return None


registry = Registry()


def cache_loader(pattern: str | re.Pattern[str]) -> Callable[[LoaderT], LoaderT]:
    """Register the decorated function as the loader of all keys that begin with
    `pattern`, or match it if it is a compiled expression.

    The keys are the caller's, without prefix and version.
    """

    def register(loader: LoaderT) -> LoaderT:
        registry.register(pattern, loader)
        return loader

    return register


Call = Callable[[Loader, Sequence[Any]], Mapping[Any, Any]]


def call_here(loader: Loader, keys: Sequence[Any]) -> Mapping[Any, Any]:
    return loader(keys)


Served = Sequence[tuple[Loader, Sequence[Any]]]
"""Loaders, each with the keys it serves."""


def served(keys: Iterable[Any], loader: Loader | None) -> Served:
    """`keys` with `loader`, or with the loaders that are registered for them.

    Those that nothing is registered for are left out.
    """
    if loader is not None:
        return [(loader, list(keys))]
    by_loader: dict[int, tuple[Loader, list[Any]]] = {}
    for key in keys:
        serving = registry.loader_of(key)
        if serving is not None:
            by_loader.setdefault(id(serving), (serving, []))[1].append(key)
    return list(by_loader.values())


def load(
    keys: Mapping[Any, Any],
    loaders: Served,
    *,
    chunk_size: int,
    since: float,
    call: Call = call_here,
    patience: float = PATIENCE,
) -> dict[Any, Any]:
    """The values that `loaders` have.

    `keys` maps the caller's keys to what identifies them in the whole process: what
    other threads load of them by the same loader is shared, if it was loaded after the
    monotonic time `since`, when the caller began. A loader is called, through `call`,
    with at most `chunk_size` keys at once. What it raises is the caller's to see: there
    is no other source left.
    """
    values: dict[Any, Any] = {}
    for serving, wanted in loaders:
        same = serving if isinstance(serving, Hashable) else id(serving)
        for start in range(0, len(wanted), chunk_size):
            chunk = {key: keys[key] for key in wanted[start : start + chunk_size]}
            values.update(
                flights.load(same, chunk, partial(call, serving), since, patience)
            )
    return values
