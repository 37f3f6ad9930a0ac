"""memcached's commands without a socket: requests in, reply bytes out.

Rules and wording are those of memcached 1.6 (proto_text.c), its oddities
included where a client can see them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from django_safecache.testing.numerals import signed, unsigned
from django_safecache.testing.requests import (
    BAD_FORMAT,
    KEY_MAX_LENGTH,
    Request,
    Upload,
)
from django_safecache.testing.store import CRLF, Item, Store

DELETE_USAGE = f"{BAD_FORMAT}.  Usage: delete <key> [noreply]"
_EMPTY_STATS = frozenset({"items", "slabs", "sizes", "conns", "cachedump"})
_COUNTERS = (
    *(f"{state}_connections" for state in ("curr", "total", "rejected")),
    *(f"cmd_{name}" for name in ("get", "set", "flush", "touch")),
    *(
        f"{name}_{result}"
        for name in ("get", "delete", "incr", "decr", "touch", "cas")
        for result in ("misses", "hits")
    ),
    *("cas_badval", "store_too_large", "store_no_memory"),
    *("bytes_read", "bytes_written"),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send, and when, among the replies of one read from a socket.

    Replies wait for each other; one that `flushes` sends all. One that
    `cancels` throws away those still waiting, and `closes` ends the connection:
    both as in memcached, where an overlong key in a ``get`` loses the answers
    of the commands pipelined before it.
    """

    chunks: Sequence[bytes] = ()
    flushes: bool = False
    cancels: bool = False
    closes: bool = False


class Commands:
    """Carries requests out on a `Store`. Not thread-safe, as the store is not."""

    def __init__(self, store: Store, version: str) -> None:
        self.store = store
        self.version = version

    def refuses(self, upload: Upload) -> str | None:
        """The error line for an upload whose body need not be kept, or None."""
        return self.store.refusal(upload.key, upload.flags, upload.length)

    def execute(self, request: Request, body: bytes = b"") -> Reply:
        """Carry out `request`; `body` is what its `upload` announced, with CRLF.

        The body of an upload that `refuses` is not looked at.
        """
        reply = self._execute(request, body)
        return Reply() if request.noreply else reply

    def _execute(self, request: Request, body: bytes) -> Reply:
        if request.error is not None:
            return self._wrong(request, request.error)
        if request.upload is not None:
            return self._store(request.name, request.upload, body)
        match request.name:
            case "get" | "gets" | "gat" | "gats":
                return self._get(request.name, request.words)
            case "incr" | "decr":
                return self._delta(request.name, request.words)
            case "delete":
                return self._delete(request)
            case "touch":
                return self._touch(request.words)
            case "stats":
                return self._stats(request.words)
            case _:
                return self._administer(request)

    def _wrong(self, request: Request, error: str) -> Reply:
        """Answer a wrong line; a browser's is not worth an answer to memcached."""
        words = request.words
        http = (
            words and words[-1].startswith(b"HTTP/") and words[0][:1] not in b"gsacidt"
        )
        return Reply(cancels=True, closes=True) if http else _line(error)

    def _administer(self, request: Request) -> Reply:
        match request.name:
            case "flush_all":
                return self._flush_all(request)
            case "verbosity":
                return _line(BAD_FORMAT if unsigned(request.words[1]) is None else "OK")
            case "version":
                return _line(f"VERSION {self.version}")
            case "mn":
                return Reply((b"MN\r\n",), flushes=True)
            case _:
                return Reply(closes=True)

    def _store(self, name: str, upload: Upload, body: bytes) -> Reply:
        refused = self.refuses(upload)
        if refused is not None:
            return self._refuse(name, upload.key, refused)
        self.store.stats["cmd_set"] += 1
        if not body.endswith(CRLF):
            return _line("CLIENT_ERROR bad data chunk")
        stored = self.store.put(
            name,
            upload.key,
            body,
            flags=upload.flags,
            exptime=upload.exptime,
            cas=upload.cas,
        )
        return _line(stored)

    def _refuse(self, name: str, key: bytes, refused: str) -> Reply:
        too_large = refused.endswith("too large for cache")
        self.store.stats["store_too_large" if too_large else "store_no_memory"] += 1
        if name == "set":
            # The old value would be stale; the other commands keep it.
            self.store.unlink(key)
        return _line(refused)

    def _get(self, name: str, words: Sequence[bytes]) -> Reply:
        keys, exptime = words[1:], None
        if name in ("gat", "gats"):
            keys, exptime = words[2:], signed(words[1])
            if exptime is None:
                return _line("CLIENT_ERROR invalid exptime argument")
        chunks: list[bytes] = []
        for key in keys:
            if len(key) > KEY_MAX_LENGTH:
                return Reply(_line(BAD_FORMAT).chunks, cancels=True)
            item = self._look_up(key, exptime)
            if item is not None:
                # Values are not copied: a line may ask for the same ones again.
                chunks += (_header(key, item, name in ("gets", "gats")), item.data)
        chunks.append(b"END\r\n")
        return Reply(chunks, flushes=True)

    def _look_up(self, key: bytes, exptime: int | None) -> Item | None:
        if exptime is None:
            return self.store.get(key)
        return self.store.touch(key, exptime)

    def _delta(self, name: str, words: Sequence[bytes]) -> Reply:
        amount = unsigned(words[2])
        if len(words[1]) > KEY_MAX_LENGTH:
            return _line(BAD_FORMAT)
        if amount is None:
            return _line("CLIENT_ERROR invalid numeric delta argument")
        try:
            number = self.store.delta(name, words[1], amount)
        except ValueError as error:
            return _line(f"CLIENT_ERROR {error}")
        return _line("NOT_FOUND" if number is None else number.decode("ascii"))

    def _delete(self, request: Request) -> Reply:
        words = request.words
        zero = len(words) > 2 and words[2] == b"0"  # an old argument: hold for 0 s
        if len(words) != 2 + zero + request.noreply:
            return _line(DELETE_USAGE)
        if len(words[1]) > KEY_MAX_LENGTH:
            return _line(BAD_FORMAT)
        return _line("DELETED" if self.store.delete(words[1]) else "NOT_FOUND")

    def _touch(self, words: Sequence[bytes]) -> Reply:
        exptime = signed(words[2])
        if len(words[1]) > KEY_MAX_LENGTH:
            return _line(BAD_FORMAT)
        if exptime is None:
            return _line("CLIENT_ERROR invalid exptime argument")
        return _line("TOUCHED" if self.store.touch(words[1], exptime) else "NOT_FOUND")

    def _flush_all(self, request: Request) -> Reply:
        given = len(request.words) > 1 + request.noreply
        exptime = signed(request.words[1]) if given else 0
        if exptime is None:
            return _line("CLIENT_ERROR invalid exptime argument")
        self.store.flush(exptime)
        return _line("OK")

    def _stats(self, words: Sequence[bytes]) -> Reply:
        topic = words[1].decode("latin-1") if len(words) > 1 else ""
        if topic == "":
            return _table(self._general_stats())
        if topic == "settings":
            return _table(self._settings())
        if topic == "reset":
            open_now = self.store.stats["curr_connections"]
            self.store.stats.clear()
            self.store.stats["curr_connections"] = open_now
            return _line("RESET")
        return _table({}) if topic in _EMPTY_STATS else _line("ERROR")

    def _general_stats(self) -> dict[str, object]:
        store, stats = self.store, self.store.stats
        now = store.clock()
        return {
            "pid": os.getpid(),
            "uptime": int(now - store.started),
            "time": int(now),
            "version": self.version,
            "pointer_size": 64,
            **{name: stats[name] for name in _COUNTERS},
            "limit_maxbytes": store.limit_maxbytes,
            "accepting_conns": 1,
            "threads": 1,
            "bytes": store.bytes,
            "curr_items": len(store),
            "total_items": stats["total_items"],
            "evictions": stats["evictions"],
            "reclaimed": stats["reclaimed"],
        }

    def _settings(self) -> dict[str, object]:
        return {
            "maxbytes": self.store.limit_maxbytes,
            "evictions": "on",
            "cas_enabled": "yes",
            "item_size_max": self.store.item_size_max,
        }


def _header(key: bytes, item: Item, with_cas: bool) -> bytes:
    length = len(item.data) - len(CRLF)
    if with_cas:
        return b"VALUE %b %d %d %d\r\n" % (key, item.flags, length, item.cas)
    return b"VALUE %b %d %d\r\n" % (key, item.flags, length)


def _line(text: str) -> Reply:
    return Reply((text.encode("latin-1") + CRLF,))


def _table(stats: dict[str, object]) -> Reply:
    lines = [f"STAT {name} {value}\r\n" for name, value in stats.items()]
    return Reply(("".join(lines).encode("latin-1"), b"END\r\n"))
