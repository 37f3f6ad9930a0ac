"""An exception thrown into a thread from outside, at any instruction whatever.

A tracer does what a signal handler or the abort of a worker does, only everywhere:
it raises before the Nth instruction of the code that adds up.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

import pytest
from observed import NOON, Clock, make_failure, make_outcome

from django_safecache.recording import buckets
from django_safecache.recording.recorder import Recorder

# Not the cells, which are never changed: an interrupted sum of theirs is no sum.
ADDING_UP = buckets.__file__
CALLS = 8


class InterruptionError(BaseException):
    pass


def interrupted(work, at):
    """Run `work`, stopped before the instruction `at` of adding up; was it?

    In a thread of its own: an exception may come where the interpreter expects none,
    and leave the thread handling another one for good.
    """
    stopped = []

    def trace(frame, event, arg):
        nonlocal at
        if frame.f_code.co_filename != ADDING_UP:
            return trace
        frame.f_trace_opcodes = True
        if event == "opcode":
            at -= 1
            if at < 0:
                sys.settrace(None)
                raise InterruptionError
        return trace

    def run():
        sys.settrace(trace)
        try:
            work()
        except InterruptionError:
            stopped.append(True)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return bool(stopped)


def a_recorder_with_calls_aside(clock):
    recorder = Recorder(max_cells=2, clock=clock)
    for number in range(CALLS):
        failures = (make_failure(),) if number % 4 == 3 else ()
        outcome = make_outcome(server="ABC"[number % 3], hits=1, failures=failures)
        recorder.observe(outcome)
    return recorder


def sums(recorder):
    counted = Counter()
    for cell in recorder.snapshot().cells:
        counted.update({name: number for name, number in cell.counts.items() if number})
        counted.update(cell.failures)
        counted["durations"] += sum(cell.durations)
    return counted


class TestAddingUp:
    @pytest.mark.parametrize("then", ["snapshot", "observe", "next bucket"])
    def test_interrupted_anywhere_it_loses_nothing_and_counts_nothing_twice(self, then):
        expected = {
            "calls": CALLS,
            "hits": CALLS,
            "durations": CALLS,
            "epipe": 2,
        }
        # The first tracer of a process that asks for instructions is told of none.
        interrupted(a_recorder_with_calls_aside(Clock()).snapshot, 0)
        at = 0
        while True:
            clock = Clock(NOON)
            recorder = a_recorder_with_calls_aside(clock)
            was_interrupted = interrupted(recorder.snapshot, at)
            more = 0
            if then == "next bucket":
                clock.now += 300
            if then != "snapshot":
                recorder.observe(make_outcome(server="A"))
                more = 1
            assert sums(recorder) == {
                **expected,
                "calls": CALLS + more,
                "durations": CALLS + more,
            }, f"interrupted before instruction {at}"
            if not was_interrupted:
                break
            at += 1
        assert at > 100  # it was really interrupted
