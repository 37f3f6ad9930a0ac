"""What a server was asked, kept for assertions."""

from __future__ import annotations

from collections import Counter, deque

MAX_LINES = 10_000
MAX_BYTES = 8 * 1024 * 1024


class Record:
    """Request lines and counts; the oldest lines go when there are too many.

    At most `MAX_LINES` lines of together `MAX_BYTES` bytes are kept. Not
    thread-safe: the thread that serves owns it.
    """

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque()
        self.commands: Counter[str] = Counter()
        self.connections_accepted = 0
        self._bytes = 0

    def add_line(self, line: bytes, name: str) -> None:
        """Keep `line` as it was received and count it under the command `name`."""
        self.commands[name] += 1
        self.lines.append(line)
        self._bytes += len(line)
        while len(self.lines) > MAX_LINES or self._bytes > MAX_BYTES:
            self._bytes -= len(self.lines.popleft())

    def clear(self) -> None:
        """Forget everything."""
        self.lines.clear()
        self.commands.clear()
        self.connections_accepted = 0
        self._bytes = 0
