"""The verdicts of a run notice what they are there for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from journal import Edit, Follower, Pen, revised, shown
from load import Page, Sighting, fragments
from verdicts import FRAGMENTS, Run, Span, verdicts
from web_servers import Resources

ONE = Resources(pid=1, threads=4, sockets=3, cache_sockets=1, rss=60)
# In a healthy phase, then in one that empties the server.
EDIT = Edit(7, 1, "set", began=10.0, acknowledged=10.1, answered=True)
LATER = Edit(8, 1, "set", began=11.0, acknowledged=11.1, answered=True)
PAGE = Page(began=9.0, duration=0.5, status=200, complete=True, from_cache=FRAGMENTS)
GOOD = Run(
    spans=[Span("healthy", 0.0, False), Span("killed", 100.0, True)],
    pages=[PAGE],
    warm_up=1,
    sightings=[],
    edits=[EDIT, LATER],
    tally=Counter({"get keys": 842, "get hits": 840, "get unavailable": 2}),
    stored=Counter({"hits": 840, "unavailable": 2}),
    before=[ONE],
    after=[ONE],
    max_cache_sockets=2,
    exit_codes={"writer.py": 0},
    complaints=[],
)


def not_held(run: Run) -> list[str]:
    return [verdict.name for verdict in verdicts(run) if not verdict.held]


def seen(*began: float, shown: int = 0, expected: int = 1) -> list[Sighting]:
    return [Sighting(7, shown, expected, list(began))]


def with_edit(**changes: object) -> Run:
    return replace(GOOD, edits=[replace(EDIT, **changes), LATER])


class TestVerdicts:
    def test_all_is_well(self):
        assert not_held(GOOD) == []

    @pytest.mark.parametrize(
        ("wrong", "name"),
        [
            ({"pages": [replace(PAGE, status=500)]}, "every answer is 200"),
            ({"pages": [replace(PAGE, complete=False)]}, "every page has all"),
            ({"pages": [replace(PAGE, duration=31.0)]}, "no page hangs"),
            ({"sightings": seen(12.0)}, "fresh after a set"),
            ({"warm_up": 2}, "hits + misses + unavailable"),
            ({"stored": Counter({"hits": 840})}, "the tables have"),
            ({"after": [replace(ONE, sockets=30)]}, "no growth in sockets"),
            ({"after": [replace(ONE, threads=30)]}, "no growth in threads"),
            ({"after": [replace(ONE, rss=200)]}, "no growth in rss"),
            ({"after": [replace(ONE, cache_sockets=3)]}, "no connection to the"),
            ({"exit_codes": {"gunicorn": 1}}, "everything ended in order"),
            ({"complaints": ["Traceback"]}, "everything ended in order"),
        ],
    )
    def test_what_is_wrong_is_named(self, wrong, name):
        (named,) = not_held(replace(GOOD, **wrong))
        assert named.startswith(name)

    def test_a_worker_that_was_replaced(self):
        """What another process holds says nothing of growth."""
        run = replace(GOOD, after=[replace(ONE, pid=2)])
        assert len(not_held(run)) == 3


class TestStaleness:
    def test_a_delete(self):
        run = replace(with_edit(operation="delete"), sightings=seen(12.0))
        assert not_held(run) == ["fresh after a delete"]

    def test_a_delete_while_a_reader_fills_the_cache(self):
        """The reader had the old text already: excused, there and only then."""
        edit = replace(EDIT, operation="delete", began=110.0, acknowledged=110.1)
        page = replace(PAGE, began=109.9, from_database=FRAGMENTS)
        run = replace(GOOD, edits=[edit], pages=[page], sightings=seen(112.0))
        assert not_held(run) == []
        run = replace(run, pages=[replace(page, began=105.0)])
        assert not_held(run) == ["fresh after a delete"]

    def test_a_page_that_may_share_an_older_load(self):
        """As long as that lasts; a page that begins later has no such excuse."""
        loading = replace(PAGE, began=9.9, duration=1.0, from_database=FRAGMENTS)
        run = replace(GOOD, pages=[loading], sightings=seen(10.5))
        assert not_held(run) == ["no page is older because it shares a load"]
        run = replace(run, sightings=seen(10.95))
        assert not_held(run) == ["fresh after a set"]

    def test_a_lost_write_until_it_is_made_good(self):
        """Until the writer's later write was answered at 11.1; not after."""
        lost = with_edit(answered=False)
        assert not_held(replace(lost, sightings=seen(10.5, 11.0))) == []
        run = replace(lost, sightings=seen(10.5, 11.2))
        assert not_held(run) == ["lost writes are made good"]

    def test_a_lost_write_after_one_that_was_answered(self):
        """The older one excuses nothing, because it was answered."""
        again = replace(EDIT, revision=2, began=10.2, acknowledged=10.3, answered=False)
        run = replace(GOOD, edits=[EDIT, again], sightings=seen(12.0, expected=2))
        assert not_held(run) == ["fresh after a set"]

    def test_the_writer_reads_its_own(self):
        """Whatever became of the write."""
        name = "the writer never reads what it overwrote"
        for answered in (True, False):
            run = with_edit(answered=answered, own_stale=[(7, 0)])
            assert not_held(run) == [name]


class TestJournal:
    def test_a_follower_reads_what_is_new(self, tmp_path):
        file = tmp_path / "journal"
        pen = Pen(file)
        follower = Follower(file)
        try:
            assert list(follower.new()) == []
            pen.write(EDIT)
            assert list(follower.new()) == [EDIT]
            pen.write(LATER)
            assert list(follower.new()) == [LATER]
        finally:
            follower.close()
            pen.close()

    def test_a_revision_is_found_in_its_text(self):
        assert shown(revised("the text", 7, 12)) == (12, 7)
        assert shown("the text") == (0, None)


class TestFragments:
    def page(self, *texts: tuple[int, str]) -> str:
        return "".join(
            f'<article class="fragment text" id="message-{number}">{text}</article>'
            for number, text in texts
        )

    def test_all_of_them(self):
        html = self.page((7, revised("a", 7, 2)), (8, "b"))
        assert fragments(html, [7, 8]) == ({7: 2, 8: 0}, True)

    @pytest.mark.parametrize(
        "texts",
        [
            [(7, "a")],
            [(8, "b"), (7, "a")],
            [(7, "a"), (8, "b"), (8, "b")],
            [(7, revised("b", 8, 1)), (8, "b")],
        ],
    )
    def test_too_few_too_many_in_disorder_or_mixed(self, texts):
        _, complete = fragments(self.page(*texts), [7, 8])
        assert not complete
