"""Whether the invariants held: judged from what was seen, edited and counted."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from journal import Edit
from load import HANG, Page, Sighting
from web_servers import Resources

FRAGMENTS = 421
SOCKETS_SPARE = 8
"""Connections of readers that happen to be open, and of the database."""
THREADS_SPARE = 8
"""Executors start threads as they need them: at most one for each reader, and two."""
MEMORY_SPARE = 24
"""Megabytes that a process may take more: fragmentation, not a leak of a whole run.
Every page is 0.3 MB in the making, and its keys and values are as much again."""


@dataclass(frozen=True)
class Span:
    """A phase as it happened."""

    name: str
    begin: float
    empties: bool
    failures: dict[str, int] = field(default_factory=dict)
    """By kind, as stored by its end: a flush interval late."""
    cache_p99: float | None = None
    """Seconds of a cache call, rounded up to a bound of the histogram; as late."""


@dataclass(frozen=True)
class Verdict:
    name: str
    held: bool
    detail: str


@dataclass(frozen=True)
class Staleness:
    """Pages that showed a message older than `edit`, and when they began."""

    edit: Edit
    began: Sequence[float]

    @property
    def seconds(self) -> float:
        """From when the edit was acknowledged to the last such page."""
        return max(self.began) - self.edit.acknowledged


@dataclass(frozen=True)
class Run:
    """All there is to know of a run that is over."""

    spans: Sequence[Span]
    pages: Sequence[Page]
    warm_up: int
    """Pages that were asked for before the first phase."""
    sightings: Sequence[Sighting]
    edits: Sequence[Edit]
    tally: Counter[str]
    stored: Counter[str]
    """Hits, misses, unavailable and so on, from the tables."""
    before: Sequence[Resources]
    after: Sequence[Resources]
    max_cache_sockets: int
    """Of a process: as many as calls it can have under way."""
    exit_codes: dict[str, int]
    complaints: Sequence[str]
    """Lines of the servers' output that ought not be there."""

    def span_of(self, moment: float) -> int:
        """The index of the phase at that time."""
        begins = [span.begin for span in self.spans]
        return max(bisect_right(begins, moment) - 1, 0)

    @cached_property
    def staleness(self) -> list[Staleness]:
        """What was stale in pages, each under the edit that ought to have shown.

        That is the latest one that the server answered for, if there is one among
        those that do not show; then nothing excuses it.
        """
        return [
            Staleness(self._missed(seen.message, seen.shown, seen.expected), seen.began)
            for seen in self.sightings
        ]

    @cached_property
    def own_staleness(self) -> list[Staleness]:
        """The same of what the writer read back itself."""
        latest: dict[int, int] = {}
        found = []
        for edit in self.edits:
            latest[edit.message] = edit.revision
            for message, shown in edit.own_stale:
                missed = self._missed(message, shown, latest[message])
                found.append(Staleness(missed, [edit.acknowledged]))
        return found

    def _missed(self, message: int, shown: int, expected: int) -> Edit:
        missed = [
            edit
            for edit in self._edits_by_message[message]
            if shown < edit.revision <= expected
        ]
        return max(missed, key=lambda edit: (edit.answered, edit.revision))

    @cached_property
    def _edits_by_message(self) -> dict[int, list[Edit]]:
        found: dict[int, list[Edit]] = {}
        for edit in self.edits:
            found.setdefault(edit.message, []).append(edit)
        return found

    def answered(self, operation: str) -> list[Staleness]:
        """Staleness although the server had done as the writer told it; without pages
        that may have shared an older load, which are `sharing`."""
        return [
            Staleness(each.edit, alone)
            for each in self.staleness
            if each.edit.answered
            and each.edit.operation == operation
            and (alone := [at for at in each.began if not self._shares(each.edit, at)])
        ]

    def sharing(self) -> list[Staleness]:
        """Staleness of pages that began while another, which had begun before the
        edit was acknowledged, was still loading: its values may be theirs too."""
        return [
            Staleness(each.edit, shared)
            for each in self.staleness
            if each.edit.answered
            and not self.is_racing(each.edit)
            and (shared := [at for at in each.began if self._shares(each.edit, at)])
        ]

    def _shares(self, edit: Edit, began: float) -> bool:
        return any(
            page.from_database
            and page.began < edit.acknowledged
            and began < page.began + page.duration
            for page in self.pages
        )

    def is_racing(self, edit: Edit) -> bool:
        """Whether a reader was filling an empty cache meanwhile: it may have loaded
        the text before `edit`, and added it to the cache after."""
        return self.spans[self.span_of(edit.began)].empties and any(
            page.from_database
            and page.began < edit.acknowledged
            and edit.began < page.began + page.duration
            for page in self.pages
        )

    def not_made_good(self) -> Iterator[tuple[Edit, int, float]]:
        """Lost edits that pages were stale for after the writer had been answered by
        the server again: how many pages, and seconds from then to the last."""
        for each in self.staleness:
            good = self._answered_again(each.edit)
            late = [began for began in each.began if began > good]
            if late and not each.edit.answered:
                yield each.edit, len(late), max(late) - good

    def _answered_again(self, lost: Edit) -> float:
        """When the writer's next write was acknowledged that the server answered."""
        return min(
            (
                edit.acknowledged
                for edit in self.edits
                if edit.began >= lost.acknowledged and edit.answered
            ),
            default=float("inf"),
        )


def verdicts(run: Run) -> list[Verdict]:
    return [
        _statuses(run),
        _complete(run),
        _no_hang(run),
        _after_set(run),
        _after_delete(run),
        _fresh("no page is older because it shares a load", run.sharing()),
        _made_good(run),
        _own(run),
        _counts(run),
        _stored(run),
        *_growth(run),
        _ended(run),
    ]


def _statuses(run: Run) -> Verdict:
    seen = Counter(page.error or str(page.status) for page in run.pages)
    told = ", ".join(f"{count} x {status}" for status, count in seen.items())
    return Verdict("every answer is 200", set(seen) == {"200"}, told)


def _complete(run: Run) -> Verdict:
    wrong = sum(not page.complete for page in run.pages)
    return Verdict(
        "every page has all fragments", not wrong, f"{wrong} of {len(run.pages)} wrong"
    )


def _no_hang(run: Run) -> Verdict:
    longest = max((page.duration for page in run.pages), default=0.0)
    return Verdict("no page hangs", longest < HANG, f"longest {longest:.2f} s")


def _after_set(run: Run) -> Verdict:
    return _fresh("fresh after a set", run.answered("set"))


def _after_delete(run: Run) -> Verdict:
    stale = run.answered("delete")
    racing = [each for each in stale if run.is_racing(each.edit)]
    verdict = _fresh(
        "fresh after a delete", [each for each in stale if each not in racing]
    )
    excused = f"; while the cache was being filled: {len(racing)} messages"
    return Verdict(verdict.name, verdict.held, verdict.detail + excused)


def _fresh(name: str, stale: Sequence[Staleness]) -> Verdict:
    pages = sum(len(each.began) for each in stale)
    longest = max((each.seconds for each in stale), default=0.0)
    detail = (
        f"{len(stale)} messages stale, seen {pages} times, up to {longest:.2f} s after"
    )
    return Verdict(name, not stale, detail)


def _made_good(run: Run) -> Verdict:
    late = list(run.not_made_good())
    pages = sum(count for _, count, _ in late)
    longest = max((seconds for *_, seconds in late), default=0.0)
    lost = sum(not edit.answered for edit in run.edits)
    return Verdict(
        "lost writes are made good",
        not late,
        f"{lost} lost; {len(late)} messages stale, seen {pages} times, after a later "
        f"write of the writer was answered, up to {longest:.2f} s after",
    )


def _own(run: Run) -> Verdict:
    racing, lost, told = 0, 0, 0
    for each in run.own_staleness:
        edit = each.edit
        lost += not edit.answered
        told += edit.answered
        racing += edit.operation == "delete" and run.is_racing(edit)
    checked = sum(edit.checked for edit in run.edits)
    return Verdict(
        "the writer never reads what it overwrote",
        lost + told == racing,
        f"of {checked:,} keys read back {lost} were older than a lost write, {told} "
        f"than one that was answered; {racing} deleted while the cache was being "
        "filled",
    )


def _counts(run: Run) -> Verdict:
    """What readers and writer know that they asked for, beside what was counted."""
    tally = run.tally
    pages = run.warm_up + len(run.pages)
    asked = pages * FRAGMENTS + sum(edit.checked for edit in run.edits)
    parts = [tally[f"get {name}"] for name in ("hits", "misses", "unavailable")]
    return Verdict(
        "hits + misses + unavailable = keys asked",
        sum(parts) == asked == tally["get keys"],
        f"{' + '.join(f'{part:,}' for part in parts)} = {sum(parts):,}, "
        f"asked {asked:,}",
    )


def _stored(run: Run) -> Verdict:
    """In the tables, to the last call: also of those that a worker's end cut short."""
    names = ("hits", "misses", "unavailable")
    counted = {
        name: sum(run.tally[key] for key in run.tally if key.split()[1] == name)
        for name in names
    }
    stored = {name: run.stored[name] for name in names}
    writes = counted["unavailable"] - run.tally["get unavailable"]
    return Verdict(
        "the tables have what was counted",
        stored == counted,
        f"stored {_told(stored)}; counted {_told(counted)}, of which {writes:,} "
        "unavailable to writes",
    )


def _told(figures: dict[str, int]) -> str:
    return ", ".join(f"{value:,} {name}" for name, value in figures.items())


def _growth(run: Run) -> Iterator[Verdict]:
    same = [each.pid for each in run.before] == [each.pid for each in run.after]
    pairs = list(zip(run.before, run.after, strict=True)) if same else []
    for name, spare in (
        ("sockets", SOCKETS_SPARE),
        ("threads", THREADS_SPARE),
        ("rss", MEMORY_SPARE),
    ):
        grown = [getattr(b, name) - getattr(a, name) for a, b in pairs]
        detail = (
            f"{[getattr(each, name) for each in run.before]} -> "
            f"{[getattr(each, name) for each in run.after]}, {spare} more allowed"
        )
        held = same and max(grown) <= spare
        yield Verdict(f"no growth in {name}", held, detail)
    most = max((each.cache_sockets for each in run.after), default=0)
    yield Verdict(
        "no connection to the cache is left over",
        most <= run.max_cache_sockets,
        f"{[each.cache_sockets for each in run.after]} sockets to it, at most "
        f"{run.max_cache_sockets} allowed",
    )


def _ended(run: Run) -> Verdict:
    wrong = {name: code for name, code in run.exit_codes.items() if code}
    shown = "; ".join(run.complaints[:3])
    return Verdict(
        "everything ended in order, and said nothing",
        not wrong and not run.complaints,
        f"exit codes {run.exit_codes}, {len(run.complaints)} complaints {shown}",
    )
