"""Processes that do the work of a queue: forked, and replaced after a few tasks each.

    python exact_pool.py PROCESSES TASKS_OF_A_PROCESS TASKS_A_SECOND FIRST

until standard input ends. The parent has one thread and uses no cache, as Celery's.
"""

from __future__ import annotations

import multiprocessing
import select
import sys
import time
from itertools import count
from multiprocessing.synchronize import Event

import django

django.setup()

import exact_site


def work(numbers: range, pause: float, stop: Event) -> None:
    for number in numbers:
        if stop.is_set():
            return
        began = time.monotonic()
        exact_site.ask(number)
        time.sleep(max(began + pause - time.monotonic(), 0.0))


def main() -> None:
    size, tasks, rate, first = map(int, sys.argv[1:])
    exact_site.watch()
    fork = multiprocessing.get_context("fork")
    stop = fork.Event()
    firsts = count(first, tasks)
    children: list[multiprocessing.process.BaseProcess] = []
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        children = [child for child in children if child.is_alive()]
        while len(children) < size:
            start = next(firsts)
            numbers = range(start, start + tasks)
            child = fork.Process(target=work, args=[numbers, size / rate, stop])
            child.start()
            children.append(child)
    stop.set()
    for child in children:
        child.join()


if __name__ == "__main__":
    main()
