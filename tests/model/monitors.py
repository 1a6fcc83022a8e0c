"""What may never happen, judged from what callers see: when operations began, and how they ended.

REG
    No read is older than an acknowledged operation: it returns the newest acknowledged version, or that of an
    operation which runs beside it, or of one that failed or was killed and has not been superseded since.

LIN
    There is one order of all operations, each somewhere between its beginning and its end, that explains what every
    read returned, and in which a create finds no file. An operation that failed or was killed takes effect before it
    ended, or never; one that promised to have changed nothing, never.
"""

from __future__ import annotations

from enum import Flag
from functools import lru_cache
from typing import Final, NamedTuple

from tests.model.state import ABSENT, Event, What

#: The write that was there before everybody.
_FIRST: Final = -1


class Bad(Flag):
    """What went wrong. CONV is not for monitors to see: both sides must be equal after a last repair."""

    NOTHING = 0
    REG = 1
    LIN = 2
    CONV = 4

    def __str__(self) -> str:
        return "+".join(bad.name or "" for bad in (Bad.REG, Bad.LIN, Bad.CONV) if bad & self) or "pass"


class Point(NamedTuple):
    """One order of the operations so far: the version it ends with, and what running ones have done in it."""

    value: int
    effects: frozenset[tuple[int, int]]


class Running(NamedTuple):
    """An operation that has begun and not ended."""

    operation: int
    is_read: bool
    #: What it writes.
    value: int
    #: A read: the versions it may return. A write: the writes that ended before it began.
    context: frozenset[int]
    #: A write that can only happen where there is no file.
    exclusive: bool = False


class Memory(NamedTuple):
    """What is remembered of the past: all that the rest of a run can depend on."""

    #: REG: writes whose version a read may return, with that version.
    current: frozenset[tuple[int, int]]
    #: REG: which of these have ended.
    ended: frozenset[int]
    running: tuple[Running, ...]
    #: LIN: every order that explains what callers saw. Empty once none does.
    points: frozenset[Point]


def remember_nothing(value: int) -> Memory:
    """The memory at the start, where both monitors know the file's version."""
    return Memory(frozenset({(_FIRST, value)}), frozenset({_FIRST}), (), frozenset({Point(value, frozenset())}))


def hear(memory: Memory, event: Event) -> tuple[Memory, Bad]:
    """What is remembered after ``event``, and what it violates."""
    what, operation, value = event
    if what in (What.WRITE, What.CREATE):
        return _begin_write(memory, operation, value, exclusive=what is What.CREATE), Bad.NOTHING
    if what is What.READ:
        return _begin_read(memory, operation), Bad.NOTHING
    ending = next(running for running in memory.running if running.operation == operation)
    rest = tuple(running for running in memory.running if running is not ending)
    if what is What.GOT:
        bad = Bad.NOTHING if value in ending.context else Bad.REG
        points = _where_happened(memory, operation, value)
        if memory.points and not points:
            bad |= Bad.LIN
        return memory._replace(running=rest, points=points), bad
    if what is What.RAISED:
        return memory._replace(running=rest, points=_forgotten(memory.points, operation)), Bad.NOTHING
    return _end_write(memory._replace(running=rest), ending, what, memory)


def _begin_write(memory: Memory, operation: int, value: int, *, exclusive: bool) -> Memory:
    older = frozenset(write for write, _ in memory.current if write in memory.ended)
    running = [other._replace(context=other.context | {value}) if other.is_read else other for other in memory.running]
    running.append(Running(operation, False, value, older, exclusive))
    return memory._replace(current=memory.current | {(operation, value)}, running=tuple(sorted(running)))


def _begin_read(memory: Memory, operation: int) -> Memory:
    allowed = frozenset(value for _, value in memory.current)
    return memory._replace(running=tuple(sorted((*memory.running, Running(operation, True, 0, allowed)))))


def _end_write(memory: Memory, ending: Running, what: What, before: Memory) -> tuple[Memory, Bad]:
    operation, _, value, older, _ = ending
    current = memory.current
    if what is What.DONE:
        current = frozenset(write for write in current if write[0] not in older)
        points = _where_happened(before, operation, value)
    elif what is What.VOID:
        current = current - {(operation, value)}
        points = frozenset(point for point in before.points if (operation, value) not in point.effects)
    else:
        points = _forgotten(_closure(before.points, before.running), operation)
    left = frozenset(write for write, _ in current)
    ended = (memory.ended | {operation}) & left
    running = tuple(
        other if other.is_read else other._replace(context=other.context & left) for other in memory.running
    )
    bad = Bad.LIN if before.points and not points else Bad.NOTHING
    return Memory(current, ended, running, points), bad


def _where_happened(memory: Memory, operation: int, value: int) -> frozenset[Point]:
    """The orders in which ``operation`` has happened, with that outcome."""
    effect = (operation, value)
    return frozenset(
        Point(point.value, point.effects - {effect})
        for point in _closure(memory.points, memory.running)
        if effect in point.effects
    )


def _forgotten(points: frozenset[Point], operation: int) -> frozenset[Point]:
    return frozenset(
        Point(point.value, frozenset(effect for effect in point.effects if effect[0] != operation)) for point in points
    )


@lru_cache(maxsize=1 << 16)
def _closure(points: frozenset[Point], running: tuple[Running, ...]) -> frozenset[Point]:
    """All orders in which any of the running operations have happened by now."""
    found = set(points)
    todo = list(points)
    while todo:
        value, effects = todo.pop()
        happened = {operation for operation, _ in effects}
        for other in running:
            if other.operation in happened or (other.exclusive and value != ABSENT):
                continue
            after = value if other.is_read else other.value
            point = Point(after, effects | {(other.operation, after)})
            if point not in found:
                found.add(point)
                todo.append(point)
    return frozenset(found)
