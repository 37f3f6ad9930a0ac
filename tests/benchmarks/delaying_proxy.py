"""TCP proxies that hold back every byte for a while, in a process of their own.

    python delaying_proxy.py SECONDS HOST:PORT...

prints the ports it listens on, one for each server, and runs until its standard input
ends, so that it never outlives who started it. It delays and does not throttle: bytes
that arrive while others are held are held beside them.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections import deque

RECEIVE_SIZE = 1 << 18
START_SECONDS = 10


class DelayingProxy:
    """The process, for a ``with``; `addresses` are those of the proxies, in order."""

    def __init__(self, servers: list[str], one_way: float) -> None:
        self.one_way = one_way
        self._command = [sys.executable, __file__, str(one_way), *servers]
        self.addresses: list[str] = []

    def __enter__(self) -> DelayingProxy:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe)
        ready, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        ports = self._process.stdout.readline().split() if ready else []
        if not ports:
            self.__exit__()
            raise RuntimeError("the delaying proxy does not start")
        self.addresses = [f"127.0.0.1:{int(port)}" for port in ports]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Direction:
    """Bytes on their way from one socket to another."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.held: deque[tuple[float, memoryview]] = deque()
        self.ended = False

    def take(self, delay: float) -> None:
        """Hold what has arrived until `delay` seconds from now; the end too."""
        try:
            data = self.source.recv(RECEIVE_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.ended = not data
        self.held.append((time.monotonic() + delay, memoryview(data)))

    def is_due(self, now: float) -> bool:
        return bool(self.held) and self.held[0][0] <= now

    def give(self) -> bool:
        """Pass on what is due, as much as the kernel takes; False after the end."""
        try:
            while self.is_due(time.monotonic()):
                due, data = self.held[0]
                if not data:
                    return False
                sent = self.target.send(data)
                if sent < len(data):
                    self.held[0] = due, data[sent:]
                else:
                    self.held.popleft()
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


class Proxies:
    """One loop for all connections. `select` waits to the microsecond; epoll does not.

    Its limit of 1024 descriptors is far.
    """

    def __init__(self, delay: float, servers: list[str]) -> None:
        self._delay = delay
        self._listeners: dict[socket.socket, tuple[str, int]] = {}
        self._directions: list[Direction] = []
        for server in servers:
            host, _, port = server.partition(":")
            listener = socket.create_server(("127.0.0.1", 0))
            self._listeners[listener] = (host, int(port))

    @property
    def ports(self) -> list[int]:
        return [listener.getsockname()[1] for listener in self._listeners]

    def run(self) -> None:
        """Until standard input ends."""
        while True:
            now = time.monotonic()
            readers = [each.source for each in self._directions if not each.ended]
            blocked = [each.target for each in self._directions if each.is_due(now)]
            readable, _, _ = select.select(
                [sys.stdin, *self._listeners, *readers], blocked, [], self._wait(now)
            )
            if sys.stdin in readable:
                return
            for listener in self._listeners.keys() & set(readable):
                self._accept(listener)
            for direction in self._directions:
                if direction.source in readable:
                    direction.take(self._delay)
            for direction in list(self._directions):
                if direction in self._directions and not direction.give():
                    self._close(direction)

    def _wait(self, now: float) -> float | None:
        """Seconds until the next bytes are due; what is due already waits for room."""
        dues = [each.held[0][0] for each in self._directions if each.held]
        return min((due - now for due in dues if due > now), default=None)

    def _accept(self, listener: socket.socket) -> None:
        near, _ = listener.accept()
        far = socket.create_connection(self._listeners[listener])
        for each in (near, far):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setblocking(False)
        self._directions += [Direction(near, far), Direction(far, near)]

    def _close(self, ended: Direction) -> None:
        pair = {ended.source, ended.target}
        self._directions = [d for d in self._directions if d.source not in pair]
        for each in pair:
            each.close()


if __name__ == "__main__":
    proxies = Proxies(float(sys.argv[1]), sys.argv[2:])
    print(*proxies.ports, flush=True)
    proxies.run()
