"""A network of its own that fails: to be run by ``unshare --net``.

Nothing arrives for a while, and the kernel keeps what was sent. Prints how many of two
sets the server carried out: ``1`` if the second one, which was told to be lost, stays
so.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import sys
import time
from contextlib import closing
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "example_project")]

from cache_server import Memcached, free_port  # noqa: E402 - from the folder above
from django.conf import settings  # noqa: E402 - after it

PARTITION = 1.0
AFTERWARDS = 3.0
"""Seconds: the kernel tries again 1.5 and 3 s after the first time, and so on."""
SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def loopback(*, up: bool) -> None:
    """Switch the only network there is."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as any_socket:
        request = struct.pack("16sh14x", b"lo", IFF_UP if up else 0)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def main() -> None:
    from django_safecache.backend import SafeCache

    server = Memcached(shutil.which("memcached"), free_port())
    server.start()
    try:
        cache = SafeCache(server.address, {"OPTIONS": {"timeout": 0.3}})
        cache.set("page", "old")
        loopback(up=False)
        cache.set("page", "lost")
        time.sleep(PARTITION)
        loopback(up=True)
        time.sleep(AFTERWARDS)
        print(sets(server.address))
    finally:
        server.stop()


def sets(address: str) -> int:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"stats\r\n")
        said = b""
        while not said.endswith(b"END\r\n"):
            said += connection.recv(4096)
    return int(said.partition(b"STAT cmd_set ")[2].split()[0])


if __name__ == "__main__":
    settings.configure()
    loopback(up=True)
    main()
