"""Django's keys and timeouts in memcached's terms."""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterable
from typing import Any

from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    BaseCache,
    InvalidCacheKey,
    default_key_func,
    memcache_key_warnings,
)
from django.utils.functional import cached_property

from django_safecache.memcached.keys import (
    MadeKeys,
    encode_key,
    encode_keys,
    problem_of,
    texts_of,
)
from django_safecache.memcached.options import Options

RELATIVE_LIMIT = 60 * 60 * 24 * 30
"""Seconds up to which memcached takes an exptime as relative; above, as a date."""

_HOOKS = frozenset(["make_key", "make_and_validate_key", "validate_key"])


class KeyMakingCache(BaseCache):
    """The part of a cache that makes and checks keys, and asks no server."""

    def __init__(self, params: dict[str, Any], options: Options) -> None:
        super().__init__(params)
        self._options = options

    def validate_key(self, key: str) -> None:
        """Raise `InvalidCacheKey` for what Django or memcached does not take."""
        for warning in memcache_key_warnings(key):
            raise InvalidCacheKey(warning)
        problem = problem_of(key, spent_bytes=self._spent_bytes)
        if problem is None and not self._options.allow_unicode_keys:
            problem = None if key.isascii() else f"{key!r} is not ASCII"
        if problem is not None:
            raise InvalidCacheKey(f"Cache key will not work with memcached: {problem}")

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> int:
        """The exptime for Django's `timeout` in seconds: 0 never, -1 at once."""
        if timeout == DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        if timeout is None:
            return 0
        if int(timeout) == 0:
            return -1
        if timeout > RELATIVE_LIMIT:
            timeout += int(time.time())
        return int(timeout)

    def _made(self, keys: Iterable[Any], version: int | None) -> MadeKeys:
        """Made keys and what the caller calls each; raises `InvalidCacheKey`.

        As with Django's own, of two keys with one made key (1 and "1") the last
        stays.
        """
        keys = list(keys)
        texts = made = None
        if not self._takes_keys_one_by_one:
            texts, prefix = texts_of(keys), self._prefix(version)
            made = encode_keys(texts, prefix=prefix, spent_bytes=self._spent_bytes)
        if made is None:
            made = [self._made_one_by_one(key, version) for key in keys]
        # Of texts the hashes are known, as a rule.
        if len(set(keys if texts is keys else made)) < len(made):
            unique = dict(zip(made, keys, strict=True))
            made, keys = list(unique), list(unique.values())
        return MadeKeys(made, keys)

    def _made_one(self, key: Any, version: int | None) -> tuple[Any, bytes]:
        """What one key is called in dictionaries, and its made key; raises
        `InvalidCacheKey`. Django takes a key that has no hash."""
        label = key if type(key) is str or isinstance(key, Hashable) else str(key)
        if not self._takes_keys_one_by_one:
            made = f"{self._prefix(version)}{key!s}"
            encoded = encode_key(made, spent_bytes=self._spent_bytes)
            if encoded is not None:
                return label, encoded
        return label, self._made_one_by_one(key, version)

    def _made_one_by_one(self, key: Any, version: int | None) -> bytes:
        made = str(self.make_and_validate_key(key, version=version))
        encoded = encode_key(made, spent_bytes=self._spent_bytes)
        if encoded is None:  # a subclass that checks less
            problem = problem_of(made, spent_bytes=self._spent_bytes)
            raise InvalidCacheKey(f"Cache key will not work with memcached: {problem}")
        return encoded

    def _prefix(self, version: int | None) -> str:
        version = self.version if version is None else version
        return f"{self.key_prefix!s}:{version!s}:"

    @cached_property
    def _spent_bytes(self) -> int:
        return len(self._options.key_prefix)

    @property
    def _takes_keys_one_by_one(self) -> bool:
        """Whether keys are made or checked in a way of the site's own: by a key
        function, a subclass, or a method put onto this very object."""
        return self._is_customised or not self.__dict__.keys().isdisjoint(_HOOKS)

    @cached_property
    def _is_customised(self) -> bool:
        return (
            self.key_func is not default_key_func
            or not self._options.allow_unicode_keys
            or any(
                getattr(type(self), name) is not getattr(KeyMakingCache, name)
                for name in _HOOKS
            )
        )
