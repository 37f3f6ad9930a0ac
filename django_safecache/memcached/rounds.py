"""Jobs carried out: round by round, all servers at once, within one deadline."""

from __future__ import annotations

import atexit
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import zip_longest

from django_safecache.events import get_logger
from django_safecache.exceptions import (
    DeadlineError,
    PoolExhaustedError,
    ProtocolError,
)
from django_safecache.memcached import protocol
from django_safecache.memcached.command_job import CommandJob
from django_safecache.memcached.connecting import wait_until_ended
from django_safecache.memcached.connection import Connection
from django_safecache.memcached.exchange import converse
from django_safecache.memcached.failures import TRANSPORT_ERRORS
from django_safecache.memcached.job import Job
from django_safecache.memcached.options import Options
from django_safecache.memcached.pool import RECHECK
from django_safecache.memcached.server import Server, all_servers
from django_safecache.memcached.unwritten import Due


def carry_out(jobs: Sequence[Job], options: Options, started: float) -> None:
    """Ask until every job has its answers, or has given up. Raises nothing of the
    transport; whatever interrupts it leaves no connection with an answer under way."""
    deadline = started + options.deadline
    try:
        _make_good(jobs, options, deadline)
        _ask(jobs, deadline)
    finally:  # what was interrupted is lost as well
        for job in jobs:
            for keys, sent in job.unwritten():
                job.server.unwritten.add(keys, sent=sent)


def _make_good(jobs: Sequence[Job], options: Options, deadline: float) -> None:
    """Delete what was written in vain before, on the servers of `jobs`.

    A server that does not confirm it is not asked: what it has may be old.
    """
    deletes = []
    patience = min(time.monotonic() + options.timeout, deadline)
    for job in jobs:
        if not job.server.unwritten.is_due or job.exchange is not None:
            continue
        if due := _claimed(job.server, patience, deadline):
            deletes.append((job, due, _delete_job(job.server, due)))
        elif job.server.breaker.is_left_alone:
            job.skip()
        elif job.server.unwritten.is_due:
            job.give_up(DeadlineError("another thread is deleting what was lost"))
    _ask([delete for _, _, delete in deletes], deadline)
    for job, due, delete in deletes:
        confirmed = _confirm(due, delete)
        believed = confirmed == len(due) or not job.server.unwritten.is_due
        job.add_to_its_own(delete, believed=believed)


def _claimed(server: Server, until: float, deadline: float) -> Mapping[bytes, Due]:
    """What there is to delete. For a thread that is at it this one waits `until` then,
    as long as for a server that says nothing."""
    while server.unwritten.is_due and not server.breaker.is_left_alone:
        due = server.unwritten.claim(deadline)
        if due is not None:
            return due
        if time.monotonic() >= until:
            break
        time.sleep(RECHECK)
    return {}


def _delete_job(server: Server, due: Mapping[bytes, Due]) -> CommandJob:
    lines = [(key, protocol.delete_line(key)) for key in due]
    return CommandJob(server, server.options, "delete", lines)


def _confirm(due: Mapping[bytes, Due], delete: CommandJob) -> int:
    """How many of `due` the server has confirmed."""
    confirmed = [key for key in due if key in delete.statuses]
    refused = bool(delete.refusals)
    delete.server.unwritten.deleted(due, confirmed, refused=refused)
    return len(confirmed)


def make_good_at_the_end(servers: Iterable[Server]) -> None:
    """Delete what was written in vain, as far as `servers` answer, once more: nobody
    else knows of it. Takes no longer than their longest deadline."""
    by_name: defaultdict[str, list[Server]] = defaultdict(list)
    deadline = started = time.monotonic()
    for server in servers:
        if server.unwritten:
            by_name[server.name].append(server)
            deadline = max(deadline, started + server.options.deadline)
            server.breaker.reset()  # there is no later
    # Caches may reach one server in different ways: another one is tried.
    for some in zip_longest(*by_name.values()):
        for name in _deleted(filter(None, some), deadline):
            by_name[name].clear()
    for name, its in by_name.items():
        if its:
            keys = len(its[0].unwritten)
            get_logger().error("unwritten_left", server=name, keys=keys)


def _deleted(servers: Iterable[Server], deadline: float) -> list[str]:
    """The names of those that have confirmed all that was written in vain."""
    deletes = []
    for server in servers:
        due = server.unwritten.claim(deadline, early=True)
        if due:
            deletes.append((due, _delete_job(server, due)))
    _ask([delete for _, delete in deletes], deadline)
    return [
        delete.server.name
        for due, delete in deletes
        if _confirm(due, delete) == len(due)
    ]


atexit.register(lambda: make_good_at_the_end(all_servers()))


def _ask(jobs: Sequence[Job], deadline: float) -> None:
    while asking := [job for job in jobs if job.wants_a_round()]:
        _round(asking, deadline)


def _round(jobs: Sequence[Job], deadline: float) -> None:
    try:
        _start_all(jobs, deadline)
        converse([job.exchange for job in jobs if job.exchange], deadline)
        for job in jobs:
            job.end_round()
    finally:
        # Whatever interrupted this - a worker's abort, KeyboardInterrupt - no
        # connection with an answer under way may be used again.
        for job in jobs:
            job.abandon_round()


def _start_all(jobs: Sequence[Job], deadline: float) -> None:
    """Send every server its first window; those first that need no connecting."""
    to_connect = []
    for job in jobs:
        if job.exchange is not None:
            continue
        if not job.server.breaker.allows():
            job.skip()
        elif connection := job.server.pool.take_idle(time.monotonic()):
            job.start(connection)
        else:
            to_connect.append(job)
    _connect_all(to_connect, deadline)


def _connect_all(jobs: Sequence[Job], deadline: float) -> None:
    """Connect, all at once, and start the jobs: a server that is not heard of would
    take the others' time. So would one whose connections are all in use: it comes
    last."""
    taken: dict[Job, Connection] = {}
    try:
        for job in jobs:
            with suppress(PoolExhaustedError):
                taken[job] = job.server.pool.take(until=0.0)
        new = [each for each in taken.values() if not each.opened]
        if len(new) > 1:
            begun = list(filter(None, [connection.begin() for connection in new]))
            patience = max(job.options.connect_timeout for job in taken)
            wait_until_ended(begun, min(time.monotonic() + patience, deadline))
        for job in sorted(jobs, key=lambda job: job not in taken):
            try:
                if job not in taken:
                    taken[job] = job.server.pool.take(deadline)
                _open(taken[job], job, deadline)
            except TRANSPORT_ERRORS as error:
                job.give_up(error)
            else:
                job.start(taken.pop(job))
    finally:  # what was not started
        for connection in taken.values():
            connection.close()


def _open(connection: Connection, job: Job, deadline: float) -> None:
    if not connection.opened:
        connection.open(deadline)
    if job.doubts_server:
        _prove_alive(connection, job.options, deadline)


def _prove_alive(connection: Connection, options: Options, deadline: float) -> None:
    """Raise unless the server answers the smallest of commands."""
    until = min(time.monotonic() + options.timeout, deadline)
    reply = connection.ask(protocol.VERSION, max(until - time.monotonic(), 0.0))
    while not reply.endswith(b"\r\n") and len(reply) <= protocol.MAX_LINE:
        if not connection.wait(False, max(until - time.monotonic(), 0.0)):
            raise TimeoutError("timed out")
        reply += connection.receive()
    if protocol.sole_status("version", reply) is None:
        raise ProtocolError("no answer to 'version'")
    connection.in_flight = False
