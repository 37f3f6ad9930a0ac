"""The site of the demo, served until Ctrl-C."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from cache_server import end, free_port, wait_for_port
from django.urls import reverse
from terminal import Terminal

PREFERRED_PORT = 8000
MANAGE = Path(__file__).resolve().parent / "manage.py"


class SiteServer:
    """`manage.py runserver` as a child process, logging to a file in `folder`.

    `port` None means `PREFERRED_PORT`, or a free one if that is taken. Raises
    `OSError` when the port that was asked for is taken.
    """

    def __init__(self, port: int | None, folder: Path) -> None:
        self._log = folder / "site.log"
        self._address = f"127.0.0.1:{_chosen_port(port)}"

    def serve(self, terminal: Terminal) -> None:
        """Print the addresses and return at Ctrl-C, with the process ended."""
        command = [sys.executable, MANAGE, "runserver", "--noreload", self._address]
        with self._log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the demo, which ends it in order.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_for_port(self._address, process)
            self._show_addresses(terminal)
            process.wait()
            raise RuntimeError(f"the site ended by itself, see {self._log}")
        except KeyboardInterrupt:
            terminal.line()
            terminal.line("Ended, and everything it started.")
        finally:
            end(process)

    def _show_addresses(self, terminal: Terminal) -> None:
        terminal.section("The site, until Ctrl-C")
        # The first of each: the demo's database was empty when it began.
        for label, name, args in (
            ("room", "campfire:transcript", [1]),
            ("dashboard", "admin:django_safecache_dashboard_changelist", []),
            ("mail", "admin:django_safecache_digestmail_change", [1]),
        ):
            terminal.link(label, f"http://{self._address}{reverse(name, args=args)}")
        terminal.line("  Log in as campfire, password campfire.")


def _chosen_port(wanted: int | None) -> int:
    with socket.socket() as probe:
        # As runserver does: a port in TIME_WAIT is not taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PREFERRED_PORT if wanted is None else wanted))
        except OSError as error:
            if wanted is None:
                return free_port()
            raise OSError(f"port {wanted}: {error.strerror}") from error
        return probe.getsockname()[1]
