"""The exceptions of this package, all children of `SafeCacheError`."""

from __future__ import annotations


class SafeCacheError(Exception):
    """Root of everything this package raises on its own account."""


class ServerUnavailableError(SafeCacheError, ValueError):
    """A server did not answer, and the operation has no harmless default.

    Also a `ValueError`, because that is what callers of Django's ``incr`` catch.
    """

    def __init__(self, server: str, kind: str, operation: str) -> None:
        super().__init__(
            f"{operation}: memcached server {server} did not answer ({kind}); "
            "whether the operation was carried out is not known"
        )
        self.server = server
        self.kind = kind
        self.operation = operation

    def __reduce__(self) -> tuple[type[ServerUnavailableError], tuple[str, str, str]]:
        return type(self), (self.server, self.kind, self.operation)


class ConnectionClosedError(SafeCacheError, ConnectionError):
    """The server closed the connection before the reply was complete."""


class DeadlineError(SafeCacheError, TimeoutError):
    """The call's deadline passed before the server had answered."""


class PoolExhaustedError(SafeCacheError, TimeoutError):
    """Every connection to the server was in use for as long as the call could wait."""


class ReplyError(SafeCacheError):
    """The server answered with an error line; `text` is what it said."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class ProtocolError(SafeCacheError, ValueError):
    """The server's bytes are not a reply to what was asked."""


class UndecodableValueError(SafeCacheError, ValueError):
    """A stored value cannot be turned back into an object."""
