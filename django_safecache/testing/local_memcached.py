"""Run a `LocalMemcached` as a process of its own, until SIGTERM or SIGINT.

    python -m django_safecache.testing.local_memcached --port 11311

One line with its address, as for Django's LOCATION, is printed when it is ready.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence

from django_safecache.testing.server import LocalMemcached
from django_safecache.testing.store import MEBIBYTE

__all__ = ["LocalMemcached", "main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal; exits with status 2 on wrong arguments."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        server = LocalMemcached(
            options.port,
            host=options.listen,
            path=options.unix_socket,
            limit_maxbytes=options.memory_limit * MEBIBYTE,
        )
    except ValueError as error:
        parser.error(str(error))
    _serve(server)


def _serve(server: LocalMemcached) -> None:
    ends = {signal.SIGTERM, signal.SIGINT}
    # Blocked before there is a thread, so that they arrive here and nowhere else.
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with server:
        print(server.address, flush=True)
        signal.sigwait(ends)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m django_safecache.testing.local_memcached",
        description="A small memcached in Python, for tests and demonstrations.",
    )
    parser.add_argument("-p", "--port", type=int, default=0, help="0: a free one")
    parser.add_argument("-l", "--listen", default="127.0.0.1", help="loopback only")
    parser.add_argument("-s", "--unix-socket", metavar="PATH")
    parser.add_argument(
        "-m", "--memory-limit", type=int, default=64, metavar="MEBIBYTES"
    )
    return parser


if __name__ == "__main__":
    main()
