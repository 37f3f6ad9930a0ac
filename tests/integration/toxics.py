"""What can go wrong with bytes on their way: toxiproxy's kinds, by its names.

A toxic holds for both ways of a connection, but for `LimitData`, which is about
replies. Seconds and bytes. https://github.com/Shopify/toxiproxy#toxics
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import asdict, dataclass
from typing import Any


class CutError(Exception):
    """The connection is to end now; with a reset if `reset`, else in order."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__("cut")
        self.reset = reset


class Way:
    """One way of a connection; `down` is the one from the server to the client."""

    def __init__(self, writer: asyncio.StreamWriter, *, down: bool) -> None:
        self.down = down
        self.passed = 0
        """Bytes since the toxic of now was set."""
        self.swallowed = False
        """Whether bytes are missing: whatever follows would make no sense."""
        self._writer = writer

    async def give(self, data: bytes) -> None:
        self.passed += len(data)
        self._writer.write(data)
        await self._writer.drain()


@dataclass(frozen=True)
class Toxic:
    """None at all: bytes pass as they come."""

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        """Pass on `data`, which `arrived` at that time of the loop's clock."""
        await way.give(data)

    async def before_closing(self) -> None:
        """Runs when one side has closed, and the other does not know yet."""


@dataclass(frozen=True)
class Latency(Toxic):
    """Every byte comes later; those on their way together are not added up."""

    seconds: float
    jitter: float = 0.0

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        delay = self.seconds + random.uniform(-self.jitter, self.jitter)
        await asyncio.sleep(arrived + delay - asyncio.get_running_loop().time())
        await way.give(data)


@dataclass(frozen=True)
class Bandwidth(Toxic):
    """Of each way of each connection, in bytes a second."""

    rate: int

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        # In steps that are short beside any timeout of the client.
        step = max(self.rate // 50, 1)
        for start in range(0, len(data), step):
            part = data[start : start + step]
            await asyncio.sleep(len(part) / self.rate)
            await way.give(part)


@dataclass(frozen=True)
class SlowClose(Toxic):
    """One side hears of the other's closing only after a while."""

    seconds: float

    async def before_closing(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class ResetPeer(Toxic):
    """Whoever sends anything gets a reset, after a while."""

    seconds: float = 0.0

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        await asyncio.sleep(self.seconds)
        raise CutError(reset=True)


@dataclass(frozen=True)
class Timeout(Toxic):
    """Everything is swallowed; the connection is closed after a while, or never."""

    seconds: float | None = None

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        way.swallowed = True
        if self.seconds is not None:
            await asyncio.sleep(self.seconds)
            raise CutError(reset=False)


@dataclass(frozen=True)
class Slicer(Toxic):
    """Small packets, with a delay between them."""

    size: int
    delay: float = 0.0

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        for start in range(0, len(data), self.size):
            await way.give(data[start : start + self.size])
            await asyncio.sleep(self.delay)


@dataclass(frozen=True)
class LimitData(Toxic):
    """A connection is closed after so many bytes of replies."""

    limit: int

    async def carry(self, data: bytes, arrived: float, way: Way) -> None:
        if not way.down:
            await way.give(data)
            return
        left = self.limit - way.passed
        await way.give(data[:left])
        if len(data) >= left:
            raise CutError(reset=False)


HEALTHY = Toxic()
_KINDS = (Latency, Bandwidth, SlowClose, ResetPeer, Timeout, Slicer, LimitData, Toxic)
_BY_NAME = {kind.__name__: kind for kind in _KINDS}


def to_json(toxic: Toxic) -> dict[str, Any]:
    return {"kind": type(toxic).__name__, **asdict(toxic)}


def from_json(described: dict[str, Any]) -> Toxic:
    """The toxic that `to_json` described."""
    options = dict(described)
    return _BY_NAME[options.pop("kind")](**options)
