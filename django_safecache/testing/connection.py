"""One client's connection: bytes in, requests carried out, faults struck, bytes out."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from typing import Literal

from django_safecache.testing.commands import Commands, Reply
from django_safecache.testing.faults import Injector, Marred
from django_safecache.testing.output import Output
from django_safecache.testing.record import Record
from django_safecache.testing.requests import Request, parse
from django_safecache.testing.store import CRLF, MEBIBYTE

Ending = Literal["close", "reset", "drop"]

# What memcached reads at a time, and what it allows without a newline unless the
# line is a multiget.
LINE_READ = 16384
MAX_UNTERMINATED = 2048
MULTIGET = re.compile(rb" {0,100}gets? ")
# Real multigets have no limit: this one keeps memory bounded.
MAX_LINE = MEBIBYTE
# Reads under Faults.max_unterminated_bytes: what the client of 2011 wrote at once.
FAULTY_READ = 4096
BODY_READ = 256 * 1024
# Above this many unsent bytes neither reads nor carries out more requests.
HIGH_WATER = MEBIBYTE


@dataclass(slots=True)
class Service:
    """What all connections of a server share; `injector` is replaced at will."""

    commands: Commands
    record: Record
    injector: Injector

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter of ``stats``."""
        self.commands.store.stats[name] += amount


@dataclass(slots=True)
class Awaited:
    """A request whose body has not arrived yet; `missing` counts its CRLF."""

    request: Request
    line: bytes
    missing: int
    kept: bool
    """False if the body is to be thrown away as it comes."""


class Connection:
    """Serves one non-blocking socket. Not thread-safe.

    Methods raise OSError when the peer is gone. When `finished` is true the
    owner of the connection calls `close`.
    """

    def __init__(self, sock: socket.socket, service: Service) -> None:
        self.sock = sock
        self.finished = False
        self._service = service
        self._input = bytearray()
        self._scanned = 0
        self._awaited: Awaited | None = None
        self._output = Output()
        self._held_back = False
        self._stalled = False
        self._ending: Ending | None = None
        self._counted: tuple[Injector, int] = (service.injector, 0)

    def interest(self) -> tuple[int, float | None]:
        """Selector events to wait for (0 for none), and the `time.monotonic` at
        which to call `on_writable` without one (None for never)."""
        mask = 0
        if self._ending is None and self._output.size <= HIGH_WATER:
            mask |= selectors.EVENT_READ
        due = self._output.due
        if due is None or due > time.monotonic():
            return mask, due
        return mask | selectors.EVENT_WRITE, None

    def on_readable(self) -> None:
        try:
            received = self.sock.recv(self._room())
        except (BlockingIOError, InterruptedError):
            return
        if received:
            self._service.count("bytes_read", len(received))
            self._input += received
            self._process()
        else:
            self._ending = self._ending or "close"
        self.on_writable()

    def on_writable(self) -> None:
        sent = self._output.send(self.sock, time.monotonic())
        self._service.count("bytes_written", sent)
        if self._held_back and self._output.size <= HIGH_WATER:
            self._process()
        if self._ending is not None and not self._output.size:
            self.finished = True

    def close(self) -> None:
        """Close the socket, in the way that the last request or fault asked for."""
        hang_up(self.sock, self._ending or "drop")

    def _room(self) -> int:
        if self._awaited is not None:
            return min(BODY_READ, self._awaited.missing - len(self._input))
        limited = self._service.injector.faults.max_unterminated_bytes is not None
        return FAULTY_READ if limited else LINE_READ

    def _process(self) -> None:
        while self._step():
            pass
        self._output.flush()

    def _step(self) -> bool:
        """Take one line or body from the input: whether there may be another."""
        if self._ending is not None or self._stalled:
            self._input.clear()
            return False
        self._held_back = self._output.size > HIGH_WATER
        if self._held_back:
            return False
        if self._awaited is not None:
            return self._take_body(self._awaited)
        line = self._take_line()
        if line is not None:
            self._begin(line)
        return line is not None

    def _take_line(self) -> bytes | None:
        end = self._input.find(b"\n", self._scanned)
        held = end if end >= 0 else len(self._input)
        too_long = self._service.injector.drops(self._input, held)
        if too_long or (end < 0 and _is_junk(self._input)):
            self._ending = "drop"
        if end < 0 or self._ending is not None:
            self._scanned = held
            return None
        line = bytes(self._input[: end + 1])
        del self._input[: end + 1]
        self._scanned = 0
        return line

    def _begin(self, line: bytes) -> None:
        request = parse(line)
        self._service.record.add_line(line, request.name)
        if self._service.injector.refuses_line(line):
            self._refuse_line()
        elif request.upload is None:
            self._run(request, line, b"")
        else:
            missing = request.upload.length + len(CRLF)
            kept = self._service.commands.refuses(request.upload) is None
            self._awaited = Awaited(request, line, missing, kept)

    def _refuse_line(self) -> None:
        if self._service.injector.faults.long_line == "close":
            self._ending = "close"
        else:
            self._output.add((b"ERROR\r\n",))

    def _take_body(self, awaited: Awaited) -> bool:
        taken = min(awaited.missing, len(self._input))
        if awaited.kept and taken < awaited.missing:
            return False
        body = bytes(self._input[:taken]) if awaited.kept else b""
        del self._input[:taken]
        awaited.missing -= taken
        if awaited.missing:
            return False
        self._awaited = None
        self._run(awaited.request, awaited.line, body)
        return True

    def _run(self, request: Request, line: bytes, body: bytes) -> None:
        injector = self._service.injector
        if not injector.concerns(line.rstrip(b"\r\n")):
            self._reply(self._service.commands.execute(request, body), None)
            return
        match injector.on_command(self._nth(injector)):
            case "run":
                self._reply(self._service.commands.execute(request, body), injector)
            case "answer":
                answer = injector.faults.answer or b""
                self._reply(Reply((answer + CRLF,)), injector)
            case "stall":
                self._stalled = True
            case "close" | "reset" as ending:
                self._ending = ending

    def _nth(self, injector: Injector) -> int:
        """Count the commands that the present faults concern, from 1."""
        counted, count = self._counted
        count = count + 1 if counted is injector else 1
        self._counted = (injector, count)
        return count

    def _reply(self, reply: Reply, injector: Injector | None) -> None:
        if reply.cancels:
            self._output.cancel()
        marred = injector.mar(reply.chunks) if injector else Marred(reply.chunks)
        if marred.delay:
            self._output.add_at(time.monotonic() + marred.delay, marred.chunks)
        else:
            self._output.add(marred.chunks)
        if reply.flushes:
            self._output.flush()
        if reply.closes or marred.closes:
            self._ending = "close"


def hang_up(sock: socket.socket, ending: Ending) -> None:
    """Close `sock`: in order, with a reset, or as it is, what is unread unread.

    Closing a socket that has unread input resets the connection, and the peer may
    lose what was sent to it: to close in order is to read first.
    """
    with contextlib.suppress(OSError):  # it may be gone already
        if ending == "close":
            _drain(sock)
        elif ending == "reset":
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


def _drain(sock: socket.socket) -> None:
    for _ in range(HIGH_WATER // LINE_READ):  # bounded: the peer may never stop
        if not sock.recv(LINE_READ):
            return


def _is_junk(held: bytearray) -> bool:
    """Whether input without a newline is more than memcached puts up with."""
    if len(held) <= MAX_UNTERMINATED:
        return False
    return len(held) > MAX_LINE or MULTIGET.match(held) is None
