"""What goes wrong on request: faults, and when they strike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Literal

AcceptVerdict = Literal["serve", "close", "reset", "reject"]
CommandVerdict = Literal["run", "close", "reset", "stall", "answer"]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How a `LocalMemcached` misbehaves. Without arguments: not at all.

    Several faults may be given at once. `only` and `times` apply to all of
    them, except that `refuse` is neither narrowed nor counted, and that no
    command is known yet when a connection is accepted.
    """

    refuse: bool = False
    """Do not listen: connections are refused, established ones live on."""
    too_many_connections: bool = False
    """Answer a new connection ``ERROR Too many open connections`` and close it."""
    close_at: int | None = None
    """Close a connection in order (the client reads EOF) instead of answering its
    Nth command since the faults were set; 0 closes it as soon as it is accepted.
    Earlier answers are sent, the Nth command is not carried out."""
    reset_at: int | None = None
    """The same with a TCP reset (ECONNRESET). A unix socket knows no reset and is
    closed."""
    stall: bool = False
    """Read and never answer, nor carry out, a command and all that follow it on
    its connection, even when the faults are changed."""
    answer: bytes | None = None
    """Send this line (CRLF is added) instead of carrying a command out. A command
    with ``noreply`` gets it too."""
    max_unterminated_bytes: int | None = None
    """Drop a connection, answering nothing, that holds more than this many bytes
    without a newline: memcached 1.4.3-rc1 and backports of CVE-2010-1152, where
    1024 was the limit and ``get`` lines were not exempt. The limit holds however
    the line is fragmented. At most 4096 bytes are read at a time, so a line sent
    in one piece is reset, and one written in pieces ends in EPIPE."""
    max_line_bytes: int | None = None
    """Refuse a line longer than this, its line end included, as 1.6.11 did."""
    long_line: Literal["error", "close"] = "error"
    """How `max_line_bytes` refuses: ``ERROR`` and the connection stays open, or
    the connection is closed in order."""
    delay: float = 0.0
    """Seconds between reading a command and sending its reply. Replies to
    pipelined commands wait at the same time, as on a slow network."""
    garble: int | None = None
    """Seed: each reply has three bytes replaced (of all its bytes, line ends too),
    the same ones for the same seed and sequence of replies. Its length stays."""
    cut_reply_after: int | None = None
    """Send only this many bytes of a reply, then close the connection in order.
    The command is carried out."""
    only: bytes | Callable[[bytes], bool] | None = None
    """Strike only where the request line begins with these bytes, or where this is
    true of the line (without CRLF; called in the server's thread)."""
    times: int | None = None
    """Strike at most this often, counted from when the faults were set."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "garble" and isinstance(value, int | float) and value < 0:
                raise ValueError(f"{field.name} must not be negative: {value}")
        if self.long_line not in ("error", "close"):
            raise ValueError(
                f"long_line must be 'error' or 'close': {self.long_line!r}"
            )
        if isinstance(self.only, str):
            raise TypeError("only must be bytes or a function of bytes")


@dataclass(frozen=True, slots=True)
class Marred:
    """A reply after the faults of replies: `delay` in seconds."""

    chunks: Sequence[bytes]
    delay: float = 0.0
    closes: bool = False


class Injector:
    """Decides, one event after another, whether `Faults` strike.

    Not thread-safe: the thread that serves owns it. Exceptions of ``only``
    propagate.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.strikes = 0
        """How often they struck so far."""
        self._random = Random(faults.garble)  # noqa: S311  # noise, repeatable

    def on_accept(self) -> AcceptVerdict:
        """What becomes of a connection that was just accepted."""
        faults = self.faults
        verdict: AcceptVerdict = "serve"
        if faults.too_many_connections:
            verdict = "reject"
        elif faults.close_at == 0:
            verdict = "close"
        elif faults.reset_at == 0:
            verdict = "reset"
        return verdict if verdict != "serve" and self._strike() else "serve"

    def concerns(self, line: bytes) -> bool:
        """Whether a line, or the beginning of one, is among those of ``only``."""
        only = self.faults.only
        if only is None:
            return True
        return only(line) if callable(only) else line.startswith(only)

    def drops(self, held: bytes | bytearray, length: int) -> bool:
        """Whether to drop a connection that held `length` bytes without newline."""
        limit = self.faults.max_unterminated_bytes
        if limit is None or length <= limit:
            return False
        return self.concerns(bytes(held[:length])) and self._strike()

    def refuses_line(self, line: bytes) -> bool:
        """Whether `line`, CRLF included, is too long."""
        limit = self.faults.max_line_bytes
        if limit is None or len(line) <= limit:
            return False
        return self.concerns(line.rstrip(b"\r\n")) and self._strike()

    def on_command(self, nth: int) -> CommandVerdict:
        """What becomes of the `nth` command of a connection that faults concern."""
        faults = self.faults
        verdict: CommandVerdict = "run"
        if faults.close_at == nth:
            verdict = "close"
        elif faults.reset_at == nth:
            verdict = "reset"
        elif faults.stall:
            verdict = "stall"
        elif faults.answer is not None:
            verdict = "answer"
        return verdict if verdict != "run" and self._strike() else "run"

    def mar(self, chunks: Sequence[bytes]) -> Marred:
        """What becomes of a reply to a command that faults concern."""
        faults = self.faults
        cut = faults.cut_reply_after
        wanted = faults.delay > 0 or faults.garble is not None or cut is not None
        if not (wanted and any(chunks) and self._strike()):
            return Marred(chunks)
        if faults.garble is not None:
            chunks = self._garble(chunks)
        if cut is not None:
            chunks = _cut(chunks, cut)
        return Marred(chunks, faults.delay, closes=cut is not None)

    def _strike(self) -> bool:
        if self.faults.times is not None and self.strikes >= self.faults.times:
            return False
        self.strikes += 1
        return True

    def _garble(self, chunks: Sequence[bytes]) -> Sequence[bytes]:
        garbled = bytearray(b"".join(chunks))
        places = range(len(garbled))
        for place in self._random.sample(places, min(len(garbled), 3)):
            garbled[place] ^= self._random.randint(1, 255)  # never 0: it changes
        return (bytes(garbled),)


def _cut(chunks: Sequence[bytes], length: int) -> Sequence[bytes]:
    kept: list[bytes] = []
    for chunk in chunks:
        if length <= 0:
            break
        kept.append(chunk[:length])
        length -= len(chunk)
    return kept
