"""Django's keys and timeouts in memcached's terms."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    BaseCache,
    InvalidCacheKey,
    default_key_func,
    memcache_key_warnings,
)
from django.utils.functional import cached_property

from django_safecache.memcached.keys import encode_keys, problem_of
from django_safecache.memcached.options import Options

RELATIVE_LIMIT = 60 * 60 * 24 * 30
"""Seconds up to which memcached takes an exptime as relative; above, as a date."""


class KeyMakingCache(BaseCache):
    """The part of a cache that makes and checks keys, and asks no server."""

    def __init__(self, params: dict[str, Any], options: Options) -> None:
        super().__init__(params)
        self._options = options

    def validate_key(self, key: str) -> None:
        """Raise `InvalidCacheKey` for what Django or memcached does not take."""
        for warning in memcache_key_warnings(key):
            raise InvalidCacheKey(warning)
        problem = problem_of(key, spent_bytes=len(self._options.key_prefix))
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

    def _made(self, keys: Iterable[Any], version: int | None) -> dict[bytes, Any]:
        """What the caller calls each key, by made key; raises `InvalidCacheKey`.

        As with Django's own, of two keys with one made key (1 and "1") the last
        stays.
        """
        keys = list(keys)
        spent = len(self._options.key_prefix)
        if self._makes_keys_itself:
            made = [str(self.make_key(key, version)) for key in keys]
            for each in made:
                self.validate_key(each)
            encoded = encode_keys(made, spent_bytes=spent)
        else:
            version = self.version if version is None else version
            prefix = f"{self.key_prefix}:{version}:"
            encoded = encode_keys(keys, prefix=prefix, spent_bytes=spent)
        if encoded is None:
            for key in keys:
                self.make_and_validate_key(key, version)
            raise InvalidCacheKey("memcached takes no such key")
        return dict(zip(encoded, keys, strict=True))

    @cached_property
    def _makes_keys_itself(self) -> bool:
        """Whether keys are made or checked in a way that takes them one by one."""
        return (
            self.key_func is not default_key_func
            or type(self).make_key is not BaseCache.make_key
            or type(self).validate_key is not KeyMakingCache.validate_key
            or not self._options.allow_unicode_keys
        )
