"""A TCP proxy that breaks connections on command, in a process of its own.

    python fault_proxy.py HOST:PORT

prints the loopback port it listens on, takes one command a line from standard input,
answers each with ``ok`` once it holds, and runs until its standard input ends, so that
it never outlives who started it.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from typing import Any

from toxics import HEALTHY, CutError, Toxic, Way, from_json, to_json

ANSWER_SECONDS = 10
RECEIVE_SIZE = 1 << 16
HELD = 64
"""Pieces of one way that are held; then the sender waits, as with a full buffer."""
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultProxy:
    """The process, for a ``with``; clients connect to `address`."""

    def __init__(self, server: str) -> None:
        self._command = [sys.executable, __file__, server]
        self.address = ""

    def __enter__(self) -> FaultProxy:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command,
            stdin=pipe,
            stdout=pipe,
            text=True,
            # A session of its own: Ctrl-C reaches who started it, which ends it.
            start_new_session=True,
        )
        try:
            self.address = f"127.0.0.1:{int(self._answer())}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def apply(self, toxic: Toxic) -> None:
        """From now on, for the connections there are and for new ones."""
        self._tell({"toxic": to_json(toxic)})

    def cut_off(self) -> None:
        """Reset every connection and refuse new ones."""
        self._tell({"listen": False})

    def heal(self) -> None:
        """Accept connections, and pass everything on.

        A connection that bytes are missing from is closed at its next byte.
        """
        self._tell({"listen": True, "toxic": to_json(HEALTHY)})

    def _tell(self, command: dict[str, Any]) -> None:
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer != "ok":
            raise RuntimeError(f"the fault proxy said {answer!r}")

    def _answer(self) -> str:
        stdout = self._process.stdout
        ready, _, _ = select.select([stdout], [], [], ANSWER_SECONDS)
        line = stdout.readline() if ready else ""
        if not line:
            raise RuntimeError("the fault proxy does not answer")
        return line.strip()


class Link:
    """A client's connection and the one to the server behind it."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.ways: list[Way] = []

    async def run(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Until one side ends, a toxic ends it, or it is cancelled: a reset."""
        writers = [writer]
        reset = True
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._proxy.server)
            writers.append(far_writer)
            await self._carry_both_ways(reader, writer, far_reader, far_writer)
            await self._proxy.toxic.before_closing()
            reset = False
        except CutError as cut:
            reset = cut.reset
        except OSError:  # the server is not there
            reset = False
        finally:
            for each in writers:
                _close(each, reset=reset)

    async def _carry_both_ways(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        self.ways = [Way(far_writer, down=False), Way(writer, down=True)]
        tasks = []
        for source, way in zip((reader, far_reader), self.ways, strict=True):
            held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD)
            tasks.append(asyncio.ensure_future(self._give(held, way)))
            tasks.append(asyncio.ensure_future(_take(source, held)))
        try:
            done, _ = await asyncio.wait(
                tasks[::2], return_when=asyncio.FIRST_COMPLETED
            )
            for each in done:
                each.result()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _give(self, held: asyncio.Queue[tuple[float, bytes]], way: Way) -> None:
        while True:
            arrived, data = await held.get()
            if not data:
                return
            toxic = self._proxy.toxic
            if way.swallowed and toxic is self._proxy.healthy:
                raise CutError(reset=False)
            await toxic.carry(data, arrived, way)


async def _take(
    source: asyncio.StreamReader, held: asyncio.Queue[tuple[float, bytes]]
) -> None:
    """Hold what arrives; nothing at the end."""
    data = b"first"
    while data:
        try:
            data = await source.read(RECEIVE_SIZE)
        except OSError:
            data = b""
        await held.put((asyncio.get_running_loop().time(), data))


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        near = writer.get_extra_info("socket")
        with suppress(OSError):  # closed already
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        writer.transport.abort()
    else:
        writer.close()


class Proxy:
    """What runs in the process."""

    def __init__(self, server: str) -> None:
        host, _, port = server.partition(":")
        self.server = (host, int(port))
        self.healthy = self.toxic = HEALTHY
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._links: dict[asyncio.Task[None], Link] = {}

    async def run(self) -> None:
        """Until standard input ends."""
        await self._listen()
        print(self._port, flush=True)
        commands = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
        )
        try:
            while line := await commands.readline():
                await self._obey(json.loads(line))
                print("ok", flush=True)
        finally:
            await self._stop()
            transport.close()

    async def _obey(self, command: dict[str, Any]) -> None:
        if "toxic" in command:
            toxic = from_json(command["toxic"])
            self.toxic = self.healthy if toxic == self.healthy else toxic
            for link in self._links.values():
                for way in link.ways:
                    way.passed = 0
        if command.get("listen") is False:
            await self._stop()
        elif command.get("listen") and self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(
            self._accept, "127.0.0.1", self._port
        )
        self._port = self._listener.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        # A turn of the loop, in which what was aborted is closed.
        await asyncio.sleep(0)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self._listener is None:  # accepted in the moment it was stopped
            _close(writer, reset=True)
            return
        link = Link(self)
        task = asyncio.ensure_future(link.run(reader, writer))
        self._links[task] = link
        task.add_done_callback(self._links.pop)


if __name__ == "__main__":
    asyncio.run(Proxy(sys.argv[1]).run())
