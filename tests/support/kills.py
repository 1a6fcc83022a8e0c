"""Killing an operation at every line that it executes."""

from __future__ import annotations

import os
from collections.abc import Callable

import django_dualstorage
from django_dualstorage.storage import DualWriteStorage
from tests.support.fork import count_lines, kill_at_line
from tests.support.lab import Lab

PACKAGE = os.path.dirname(django_dualstorage.__file__)
LONG = os.environ.get("DUALSTORAGE_LONG") == "1"
#: Hours: every execution of every line.
ALL = os.environ.get("DUALSTORAGE_KILLS") == "all"
#: By default, every how many-th repetition of a line is tried.
EVERY = 25
TOUCHING = tuple(
    os.path.join(PACKAGE, part)
    for part in ("protocol", "operations", "journal.py", "locks.py", "sides/filesystem.py", "engine/boto.py")
)

Operation = Callable[[DualWriteStorage, str], object]
#: How many processes have been killed so far.
total = 0


def victim(lab: Lab, phase: str) -> DualWriteStorage:
    """A storage that the parent only warms up, so that its client can go over to a child: it has no connections."""
    storage = lab.storage(phase, allow_overwrite=True, lock_timeout=50.0)
    assert storage.pair.s3.honours_conditions
    assert storage.pair.journal.keeps_nanoseconds
    assert storage.policy
    assert storage.options
    return storage


def taken_over(storage: DualWriteStorage) -> DualWriteStorage:
    """In the child: use the parent's client as it is."""
    live = storage.pair.s3._live
    assert live is not None
    live.pid = os.getpid()
    return storage


def chosen(lines: list[tuple[str, int]], sample: int) -> list[int]:
    """The points at which to kill, counted from 1."""
    if ALL:
        return list(range(1, len(lines) + 1))
    known: set[tuple[str, int]] = set()
    points = []
    repeated = 0
    for number, line in enumerate(lines, 1):
        if line in known:
            repeated += 1
            if repeated % EVERY:
                continue
        known.add(line)
        if LONG or line[0].startswith(TOUCHING):
            points.append(number)
    return points if LONG else points[::sample]


def kill_everywhere(
    prepare: Callable[[], str],
    operation: Operation,
    storage: DualWriteStorage,
    check: Callable[[str, int], None],
    *,
    sample: int = 1,
) -> int:
    """Kill ``operation`` at each chosen line; ``check(name, line event)`` after each. How many died."""
    global total
    name = prepare()
    lines = count_lines(lambda: operation(taken_over(storage), name), PACKAGE)
    points = chosen(lines, sample)
    check(name, 0)
    died = 0
    for point in points:
        name = prepare()
        result = kill_at_line(lambda name=name: operation(taken_over(storage), name), PACKAGE, point)  # type: ignore[misc]
        assert result.killed or result.error is None, result.error
        died += result.killed
        check(name, point)
    assert died > 0.9 * len(points)
    print(f"{died} kills at {len({lines[point - 1] for point in points})} lines of {len(set(lines))} executed")
    total += died
    return died
