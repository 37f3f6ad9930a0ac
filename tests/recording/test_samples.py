from __future__ import annotations

from itertools import product

from observed import Clock, make_failure, make_outcome

from django_safecache.recording.recorder import Recorder
from django_safecache.recording.samples import MAX_WAITING
from django_safecache.recording.sightings import Sighting


def make_recorder():
    recorder = Recorder(clock=Clock())
    return recorder, recorder.causes.of("epipe", "", None, "")


def occur(recorder, cause, site, taken=None):
    def sample():
        if taken is not None:
            taken.append(site)
        return f"a stack of {site}"

    recorder.occurred(cause, lambda: Sighting(site, sample))


class TestTaking:
    def test_one_is_taken_for_each_of_five_call_sites(self):
        recorder, cause = make_recorder()
        taken = []
        for _ in range(3):
            for site in "abcdefg":
                occur(recorder, cause, site, taken)
        assert taken == list("abcde")
        samples = recorder.snapshot().samples
        assert [sample.text for sample in samples] == [
            f"a stack of {s}" for s in "abcde"
        ]

    def test_it_is_handed_over_until_it_is_stored_and_not_taken_again(self):
        recorder, cause = make_recorder()
        taken = []
        occur(recorder, cause, "a", taken)
        first, second = recorder.snapshot(), recorder.snapshot()
        assert first.samples == second.samples != ()
        recorder.forget(first)
        recorder._clock.now += 300
        occur(recorder, cause, "a", taken)
        assert recorder.snapshot().samples == ()
        assert taken == ["a"]

    def test_a_swallowed_failure_is_told_by_the_call_that_met_it(self):
        recorder = Recorder(clock=Clock())
        recorder.observe(make_outcome(failures=(make_failure(),)))
        (sample,) = recorder.snapshot().samples
        assert "in TestTaking.test_a_swallowed_failure" in sample.text or (
            "in test_a_swallowed_failure" in sample.text
        )

    def test_what_waits_for_the_database_is_bounded(self):
        recorder = Recorder(clock=Clock())
        for number in range(3 * MAX_WAITING):
            word = "".join("abcdefghij"[int(digit)] for digit in str(number))
            occur(recorder, recorder.causes.of("epipe", "", None, word), "a")
        assert len(recorder.snapshot().samples) == MAX_WAITING

    def test_of_as_many_problems_as_there_are_in_a_day_none_is_taken_again(self):
        recorder = Recorder(clock=Clock())
        words = ["".join(letters) for letters in product("abcdefghij", repeat=3)]
        causes = [
            recorder.causes.of(kind, "", None, word)
            for kind, words in (("application", words), ("browser", words[:200]))
            for word in words
        ]
        taken = []
        for number, cause in enumerate(causes * 2):
            occur(recorder, cause, "a", taken)
            if number % MAX_WAITING == MAX_WAITING - 1:
                recorder.forget(recorder.snapshot())
        assert len(taken) == len(causes)

    def test_a_forked_child_starts_without_any(self):
        recorder, cause = make_recorder()
        occur(recorder, cause, "a")
        recorder.reset()
        assert recorder.snapshot().samples == ()
