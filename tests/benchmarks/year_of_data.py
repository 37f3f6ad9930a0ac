"""Fills the tables with what a year of a busy site leaves in them.

Ten servers, which get new addresses every week, and twenty key groups, each of which is
asked for on each server in every five minutes, on ten processes; by SQL, because a year
of recording takes a year. The figures of a row are like those of a real one: a fifth of
the kinds of failure, and the histogram filled as far as the calls go.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import connection

from django_safecache.conf import get_settings
from django_safecache.memcached.outcomes import FAILURE_KINDS
from django_safecache.models import (
    DigestMail,
    Horizon,
    Resolution,
    Together,
    Writer,
)
from django_safecache.recording import histogram
from django_safecache.storage.places import ids_of, place

SERVERS = 10
KEY_GROUPS = 20
WRITERS = 10
YEAR = timedelta(days=365)
WEEK = timedelta(days=7)

# Of a hundred thousand calls, how many took up to each upper bound.
_DURATIONS = (20_000, 42_000, 22_000, 10_000, 4_000, 1_200, 500, 200, 60, 20, 10, 4, 1)
# The most asked for group has 3000 calls in five minutes on a server, the last 150.
_CALLS = "(3000 * {minutes} / 5 / (number %% {groups} + 1))"
_FIGURES = {
    "calls": "calls",
    "lines": "calls + calls / 50",
    "hits": "calls * 9 / 10",
    "misses": "calls / 10",
    "unavailable": "CASE WHEN unlucky THEN 7 END",
    "stores": "calls / 10",
    "deletes": "CASE WHEN number %% 2 = 0 THEN calls / 40 END",
    "retries": "calls / 100000",
    "bytes_sent": "calls * 60",
    "bytes_received": "calls * 512",
    "duration_sum": "calls * 0.0004",
    "duration_max": "0.02",
    **{
        column: f"calls * {share} / 100000"
        for column, share in zip(histogram.COLUMNS, _DURATIONS, strict=False)
    },
    **{
        kind: f"CASE WHEN unlucky AND number %% {len(FAILURE_KINDS)} = {index}"
        " THEN 3 END"
        for index, kind in enumerate(FAILURE_KINDS)
    },
}


def fill(now: datetime) -> None:
    """All of it, as rollups every five minutes would have left it at `now`."""
    _places(now)
    retention = get_settings().retention_days
    for resolution, days in (
        (Resolution.FIVE_MINUTES, retention.five_minutes),
        (Resolution.HOUR, retention.hour),
        (Resolution.DAY, retention.day),
    ):
        kept_from = resolution.start_of(now - timedelta(days=days))
        Horizon.objects.create(resolution=resolution, kept_from=kept_from)
        start = resolution.start_of(kept_from - Horizon.GRACE)
        rows(resolution, start, now - 2 * Resolution.FIVE_MINUTES.length)
        _problem_counts(resolution, start, now)
    store_now(now - Resolution.FIVE_MINUTES.length)
    store_now(now)
    _problems(now)
    _mails(now)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def store_now(now: datetime) -> None:
    """What ten processes have stored of the bucket of `now`."""
    bucket = Resolution.FIVE_MINUTES.start_of(now)
    for number in range(WRITERS):
        name = f"web-{number}:4711:0badcafe"
        Writer.objects.update_or_create(
            name=name,
            defaults={"last_flush": now, "settled": bucket},
            create_defaults={
                "host": f"web-{number}",
                "pid": 4711,
                "started": now - YEAR,
                "last_flush": now,
                "settled": bucket,
            },
        )
        rows(Resolution.FIVE_MINUTES, bucket, bucket, writer=name)


def rows(
    resolution: Resolution, start: datetime, last: datetime, *, writer: str = ""
) -> None:
    """A row for each bucket from `start` to that of `last`, and place of its week."""
    minutes = resolution.value / (WRITERS if writer else 1)
    calls = _CALLS.format(minutes=minutes, groups=KEY_GROUPS)
    figures = ", ".join(
        f"NULLIF(({sql})::{_type(name)}, 0)" for name, sql in _FIGURES.items()
    )
    kinds = [kind for kind in Together if kind.of(resolution) == kind]
    if writer:
        kinds = [Together.NOTHING]
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO django_safecache_cachedigest
                (writer, resolution, bucket, place_id, {", ".join(_FIGURES)})
            SELECT %s, %s, bucket, id, {figures}
            FROM (
                SELECT bucket, id, number, ({calls})::bigint AS calls,
                    (number + extract(epoch FROM bucket) / 300)::bigint %% 50 = 0
                    AS unlucky
                FROM generate_series(%s, %s, %s) AS bucket,
                    (SELECT id, row_number() OVER (ORDER BY id) AS number,
                        counted_until - CASE together WHEN 'servers' THEN %s ELSE %s END
                        AS since, counted_until AS until
                     FROM django_safecache_cacheplace
                     WHERE together = ANY(%s) AND counted_until > %s) AS place
                WHERE bucket >= since AND bucket < until
            ) AS cell
            ORDER BY bucket, id
            """,
            [
                writer,
                resolution,
                start,
                last,
                resolution.length,
                2 * YEAR,
                WEEK,
                kinds,
                start,
            ],
        )


def _type(name: str) -> str:
    return (
        "float8"
        if name.startswith("duration_s") or name == "duration_max"
        else ("bigint")
    )


def _places(now: datetime) -> None:
    """The addresses of this week begin with 10.0, those of the last one with 10.1."""
    for weeks in reversed(range(YEAR // WEEK + 2)):
        parts = [
            place("default", f"10.{weeks}.0.{server}:11211", f"key_group_{group}")
            for server in range(SERVERS)
            for group in range(KEY_GROUPS)
        ]
        ids_of(parts, now + Resolution.DAY.length - weeks * WEEK, "default")


def _problems(now: datetime) -> None:
    """On each of 90 days twenty problems have 12 accounts and 3 call sites."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO django_safecache_problemfacet
                (problem_id, day, facet, value, value_hash)
            SELECT day + each, %s::date - day,
                CASE WHEN number <= 12 THEN 'account' ELSE 'call_site' END,
                value, md5(value)
            FROM generate_series(0, 89) day, generate_series(1, 20) each,
                generate_series(1, 15) number,
                LATERAL (SELECT CASE WHEN number <= 12
                    THEN md5((each + number + day)::text)
                    ELSE 'shop/views/catalogue.py:list_articles_' || number END
                ) AS named (value)
            """,
            [now],
        )


def _problem_counts(resolution: Resolution, start: datetime, now: datetime) -> None:
    """Of twenty problems on two servers, all of them on every day."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO django_safecache_problem (id, fingerprint, algorithm, kind,
                exception, message, state, first_seen, last_seen)
            SELECT number, md5(number::text) || md5(number::text), 1, 'timeout',
                'builtins.TimeoutError', 'timed out after <n> s', 'open',
                %s - number * interval '1 day', %s
            FROM generate_series(1, 400) number ON CONFLICT DO NOTHING
            """,
            [now, now],
        )
        cursor.execute(
            """
            INSERT INTO django_safecache_problemcount (problem_id, resolution, bucket,
                alias, server, place_hash, writer, host, count)
            SELECT greatest(1, extract(day FROM %s - bucket)::int) + each, %s, bucket,
                'default', '10.0.0.' || server || ':11211', md5(server::text), '', '', 5
            FROM generate_series(%s, %s, %s) bucket,
                generate_series(1, %s) each, generate_series(1, 2) server
            """,
            [
                now,
                resolution,
                start,
                now,
                resolution.length,
                {Resolution.DAY: 20, Resolution.HOUR: 5}.get(resolution, 2),
            ],
        )


def _mails(now: datetime) -> None:
    paragraph = "".join(
        f"<tr><td>builtins.TimeoutError {number * 7919 % 1000}</td></tr>"
        for number in range(300)
    )
    DigestMail.objects.bulk_create(
        DigestMail(
            day=(now - timedelta(days=days)).date(),
            time_zone="UTC",
            status="sent",
            subject="safecache",
            text=paragraph[:6000],
            html=paragraph,
        )
        for days in range(1, YEAR.days + 1)
    )
