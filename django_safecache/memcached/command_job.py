"""Commands that are answered by one line each: one server's share of a write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from django_safecache.exceptions import ReplyError
from django_safecache.memcached import protocol
from django_safecache.memcached.exchange import Exchange, Replies
from django_safecache.memcached.failures import TOO_LARGE
from django_safecache.memcached.job import NEVER_RETRIED, Job
from django_safecache.memcached.options import Options
from django_safecache.memcached.protocol import key_of
from django_safecache.memcached.server import Server

MAX_REFUSALS = 8
"""Error lines, other than about a value's size, after which a server's remaining
commands are given up: it has no memory, say, and would refuse them all."""

LEAVES_OLD_VALUES = frozenset(["set", "delete", "touch"])
"""Operations that leave the server, if they are lost or refused, with what the site no
longer means. What became of an ``add``, ``incr`` or ``decr`` its caller is told."""


class CommandJob(Job):
    """Commands that are answered by one line each; `statuses` by the caller's keys.

    An error line among the answers of a pipeline does not say which command it is
    for: some servers drop the answers around it. So what has no answer by then is
    asked again, one command at a time, and then the error line is that command's:
    its status is the error's text. With `repeat` that goes for operations that are
    never retried, too: nobody reads the answers.
    """

    def __init__(
        self,
        server: Server,
        options: Options,
        operation: str,
        commands: Sequence[tuple[object, bytes]],
        *,
        repeat: bool = False,
    ) -> None:
        super().__init__(server, options)
        self.operation = operation
        self.may_be_repeated = repeat or operation not in NEVER_RETRIED
        self.statuses: dict[object, bytes] = {}
        self.refusals: dict[object, str] = {}
        self._keys = [label for label, _ in commands]
        self._commands = commands
        self._refused_lines: list[bytes] = []
        self._one_at_a_time = False
        self._refusals_left = MAX_REFUSALS

    def _lines(self) -> Iterable[bytes]:
        return (line for _, line in self._commands)

    def _replies(self) -> Replies:
        return protocol.StatusReplies(self.operation, len(self._commands))

    def _window(self) -> int:
        return 1 if self._one_at_a_time else super()._window()

    def _absorb(self, replies: protocol.StatusReplies) -> None:
        for (label, _), status in zip(self._commands, replies.statuses, strict=False):
            self.statuses[label] = status
        self._commands = self._commands[replies.answered :]

    def _refused(self, error: ReplyError, exchange: Exchange) -> bool:
        if exchange.outstanding < 1:  # about nothing that was sent
            return False
        if exchange.outstanding > 1:
            self._one_at_a_time = True
            return True
        label, line = self._commands[0]
        self.refusals[label] = error.text
        if TOO_LARGE not in error.text:  # then memcached drops the old value itself
            self._refused_lines.append(line)
        self._commands = self._commands[1:]
        self._refusals_left -= TOO_LARGE not in error.text
        return self._refusals_left > 0

    def unwritten(self) -> Iterable[tuple[Sequence[bytes], bool]]:
        if self.operation in LEAVES_OLD_VALUES:
            # What was refused in a later round may still lie in an earlier one's way.
            yield list(map(key_of, self._refused_lines)), self._rounds > 1
            lost = [key_of(line) for _, line in self._commands]
            yield lost, self.bytes_sent > 0

    def remaining(self) -> Sequence[object]:
        return [label for label, _ in self._commands]

    def _counts(self) -> dict[str, Any]:
        lost = self.remaining()
        answers = Counter(self.statuses.values())
        return {
            "keys": self._keys,
            "lost": lost,
            "unavailable": len(lost),
            "stored": answers[b"STORED"],
            "deleted": answers[b"DELETED"],
        }
