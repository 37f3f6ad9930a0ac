"""The site of `exact_site` on gunicorn, and clients that count what they are given."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from web_servers import WebServer

WORKERS, THREADS = 4, 4
CLIENTS = 12
REQUESTS_A_SECOND = 60
HANG = 30.0


class Gunicorn(WebServer):
    name = "gunicorn"

    def __init__(self, folder: Path, environment: dict[str, str], requests: int):
        super().__init__(folder, environment)
        self._requests = requests

    def serving(self) -> list[int]:
        return _children(self._process.pid)

    def _command(self) -> list[str]:
        return [
            "gunicorn",
            "exact_wsgi",
            f"--bind={self.address}",
            f"--workers={WORKERS}",
            "--worker-class=gthread",
            f"--threads={THREADS}",
            f"--max-requests={self._requests}",
            f"--max-requests-jitter={self._requests // 2}",
            "--no-control-socket",
        ]


def _children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return sorted(int(pid) for task in tasks for pid in task.read_text().split())


class Clients:
    """Ask for pages, in threads, and count what they are given."""

    def __init__(self, address: str, *, rolled_back: bool) -> None:
        self.given: dict[int, dict[str, dict[str, int]]] = {}
        """By number of the request."""
        self.unanswered: list[int] = []
        """Requests that had no answer, or none that tells."""
        self._address = address
        self._rolled_back = rolled_back
        self._numbers = count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    @contextmanager
    def asking(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _run(self) -> None:
        pause = CLIENTS / REQUESTS_A_SECOND
        next_request = time.monotonic()
        while not self._stop.wait(max(next_request - time.monotonic(), 0.0)):
            next_request = max(next_request, time.monotonic() - pause) + pause
            with self._lock:
                number = next(self._numbers)
            try:
                counts = self._get(number)
            except (OSError, http.client.HTTPException, ValueError):
                with self._lock:
                    self.unanswered.append(number)
            else:
                with self._lock:
                    self.given[number] = counts

    def _get(self, number: int) -> dict[str, dict[str, int]]:
        failing = self._rolled_back and number % 3 == 0
        connection = http.client.HTTPConnection(self._address, timeout=HANG)
        try:
            path = f"/{'rolled-back' if failing else 'asked'}/{number}"
            connection.request("GET", path, headers={"Connection": "close"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()
