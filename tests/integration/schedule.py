"""What happens to the cache during a run, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cache_server import Memcached
from fault_proxy import FaultProxy
from toxics import (
    Bandwidth,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)


class BreakableMemcached(Memcached):
    """A real one that can be ended without notice."""

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()


@dataclass(frozen=True)
class Scene:
    proxy: FaultProxy
    memcached: BreakableMemcached


Change = Callable[[Scene], None]


def _heal(scene: Scene) -> None:
    scene.proxy.heal()


def _toxic(toxic: Toxic) -> Change:
    return lambda scene: scene.proxy.apply(toxic)


def _slow_close(scene: Scene) -> None:
    # It shows only where something is closed.
    scene.proxy.apply(SlowClose(0.5))
    scene.memcached.restart()


@dataclass(frozen=True)
class Fault:
    name: str
    begin: Change
    end: Change = _heal
    empties: bool = False
    """Whether the server loses its memory, and readers fill it again."""


FAULTS = (
    Fault("cut off", lambda scene: scene.proxy.cut_off()),
    Fault("latency 50 ms", _toxic(Latency(0.05, jitter=0.02))),
    # Longer than the client's timeout: everything arrives, and always too late.
    Fault("latency 700 ms", _toxic(Latency(0.7, jitter=0.05))),
    Fault("bandwidth 200 kB/s", _toxic(Bandwidth(200_000))),
    # More of a delay, and a page of 300 kB would be a question of bandwidth again.
    Fault("slicer 1.4 kB", _toxic(Slicer(1400))),
    Fault("limit data 100 kB", _toxic(LimitData(100_000))),
    Fault("reset peer", _toxic(ResetPeer())),
    Fault("timeout", _toxic(Timeout())),
    Fault("slow close, restart", _slow_close, empties=True),
    Fault(
        "suspended",
        lambda scene: scene.memcached.pause(),
        lambda scene: scene.memcached.resume(),
    ),
    Fault(
        "killed",
        lambda scene: scene.memcached.kill(),
        lambda scene: scene.memcached.start(),
        empties=True,
    ),
)


@dataclass(frozen=True)
class Phase:
    name: str
    begin: Change
    empties: bool = False


def phases() -> Iterator[Phase]:
    """Healthy, and again after each fault: breakers have to close, or the next fault
    would not be noticed. The first fault is a rehearsal too: what a process needs to
    serve without a cache, it has by the end of the third phase."""
    yield Phase("healthy", _heal)
    for fault in FAULTS:
        yield Phase(fault.name, fault.begin, fault.empties)
        yield Phase(f"after {fault.name}", fault.end, fault.empties)


REHEARSED = 3
"""After how many phases resources are measured first."""
