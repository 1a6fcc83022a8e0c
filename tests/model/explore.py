"""The search: every state that can be reached, breadth first, so that the first counter-example is a shortest one.

A state is a tuple of small ints: the world, what the monitors remember, and where each process stands, each interned.
What a process can do depends on the world and on where it stands only, and is worked out once for each such pair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tests.model.designs import Design, ReadRule
from tests.model.monitors import Bad, Memory, hear, remember_nothing
from tests.model.processes import Kinds, Process, Reconciler
from tests.model.readers import Reader
from tests.model.state import (
    ABSENT,
    ENDED,
    Event,
    Faults,
    Local,
    Move,
    What,
    World,
    begin,
    canonical,
    land,
    outlive,
    shown,
    stop_time,
)

State = tuple[int, ...]
Thing = TypeVar("Thing")

#: Repairs in a row after which a journal that is not empty never will be.
_ENOUGH_REPAIRS = 3


class _Interned(Generic[Thing]):
    """Equal things get one number."""

    def __init__(self) -> None:
        self.things: list[Thing] = []
        self._numbers: dict[Thing, int] = {}

    def number(self, thing: Thing) -> int:
        number = self._numbers.get(thing)
        if number is None:
            number = self._numbers[thing] = len(self.things)
            self.things.append(thing)
        return number


@dataclass(frozen=True)
class Case:
    """Who meets, and on what."""

    #: Whose claims are judged, whose repair comes last.
    design: Design
    processes: Sequence[Process]
    kinds: Kinds
    local: int
    s3: int
    faults: Faults
    #: Whether both sides must be equal at the end.
    converges: bool = True
    #: Whether the disk was written behind the storage's back, which only a comparison of both sides finds.
    verifies: bool = False
    #: Whether local copies are taken away that S3 has.
    prunes: bool = False

    @property
    def known(self) -> int:
        """What callers see at the beginning."""
        if not self.design.local_truth or self.design.reads is ReadRule.S3:
            return self.s3
        if self.local != ABSENT or self.design.reads in (ReadRule.LOCAL, ReadRule.STAMPED):
            return self.local
        return self.s3


@dataclass
class Result:
    """What a search found."""

    states: int = 0
    bad: Bad = Bad.NOTHING
    #: A shortest counter-example for each kind.
    traces: dict[Bad, list[str]] = field(default_factory=dict)

    def add(self, other: Result, name: str) -> None:
        """Join what another search found; ``name`` says where."""
        self.states += other.states
        self.bad |= other.bad
        for kind, trace in other.traces.items():
            if kind not in self.traces or len(trace) + 1 < len(self.traces[kind]):
                self.traces[kind] = [f"[{name}]", *trace]


def search(case: Case, *, until: Bad = Bad.REG | Bad.LIN | Bad.CONV) -> Result:
    """Look at every reachable state, or until every kind in ``until`` has been found."""
    return _Search(case, until).run()


class _Search:
    def __init__(self, case: Case, until: Bad) -> None:
        self.case = case
        self.until = until
        self.remembers = any(process.design.remembers_hints for process in case.processes)
        self.worlds: _Interned[World] = _Interned()
        self.memories: _Interned[Memory] = _Interned()
        self.places: _Interned[Local] = _Interned()
        self.events: _Interned[tuple[Event, ...]] = _Interned()
        self.places.number(ENDED)  # is 0
        self.events.number(())  # is 0
        self.result = Result()
        self.came_from: dict[State, tuple[State, str] | None] = {}
        self._heard: dict[tuple[int, int], tuple[int, Bad]] = {}
        self._settled: set[tuple[int, int]] = set()

    def run(self) -> Result:
        case = self.case
        world = self.worlds.number(begin(case.local, case.s3, case.faults))
        memory = self.memories.number(remember_nothing(case.known))
        start = tuple(self.places.number(process.start) for process in case.processes)
        idle = tuple(place if process.optional else -1 for process, place in zip(case.processes, start, strict=True))
        first = (world, memory, *start)
        self.came_from[first] = None
        todo = deque([first])
        caches: list[dict[tuple[int, int], list[tuple[str, int, int, int]]]] = [{} for _ in case.processes]
        passing: dict[int, list[tuple[str, int, int]]] = {}
        came_from, heard = self.came_from, self._heard
        while todo:
            state = todo.popleft()
            world, memory = state[0], state[1]
            ended, moved = True, False
            for index, cache in enumerate(caches, 2):
                place = state[index]
                if not place:
                    continue
                if place != idle[index - 2]:
                    ended = False
                steps = cache.get((world, place))
                if steps is None:
                    steps = cache[world, place] = self._steps(case.processes[index - 2], world, place)
                for label, world_after, place_after, events in steps:
                    memory_after = memory
                    if events:
                        known_as = heard.get((memory, events))
                        if known_as is None:
                            known_as = heard[memory, events] = self._hear(memory, events)
                        memory_after, bad = known_as
                        if bad:
                            self._note(bad, state, label)
                    after = (world_after, memory_after, *state[2:index], place_after, *state[index + 1 :])
                    moved = True
                    if after not in came_from:
                        came_from[after] = (state, label)
                        todo.append(after)
            if ended:
                self._judge_end(state)
            else:
                if not moved and not self._has_late(world):
                    raise AssertionError(f"Stuck for ever: {self._trace(state, 'nobody can move')}")
                if world not in passing:
                    passing[world] = self._passing(self.worlds.things[world])
                if passing[world]:
                    aging = self._aging(state)
                    for label, world_after, who in passing[world]:
                        if who < 0 or aging >> who & 1:
                            after = (world_after, *state[1:])
                            if after not in came_from:
                                came_from[after] = (state, label)
                                todo.append(after)
            if self.result.bad & self.until == self.until:
                break
        self.result.states = len(came_from)
        return self.result

    # -- what can happen -----------------------------------------------------------------------------------------------

    def _steps(self, process: Process, world: int, place: int) -> list[tuple[str, int, int, int]]:
        return [
            (
                move.label,
                self.worlds.number(canonical(move.world, hints_are_remembered=self.remembers)),
                self.places.number(move.local),
                self.events.number(move.events),
            )
            for move in process.moves(self.worlds.things[world], self.places.things[place])
        ]

    def _passing(self, world: World) -> list[tuple[str, int, int]]:
        """What happens without anybody's doing, and whose grace period it needs to pass (or -1)."""
        found = [(f"{request} lands", land(world, request), -1) for request in world.late]
        found += [
            (f"the grace period of {owner}'s last request passes", outlive(world, owner), owner)
            for owner in range(world.fresh.bit_length())
            if world.fresh >> owner & 1
        ]
        return [
            (label, self.worlds.number(canonical(after, hints_are_remembered=self.remembers)), who)
            for label, after, who in found
        ]

    def _has_late(self, world: int) -> bool:
        return bool(self.worlds.things[world].late)

    def _aging(self, state: State) -> int:
        """The operations whose grace period may pass now: nobody forbids it, and somebody will ask."""
        asked, mask = False, -1
        for process, place in zip(self.case.processes, state[2:], strict=True):
            if place:
                mask &= process.aging(self.places.things[place])
                asked = asked or process.minds_time(self.places.things[place])
        return mask if asked else 0

    def _hear(self, memory: int, events: int) -> tuple[int, Bad]:
        after, bad = self.memories.things[memory], Bad.NOTHING
        for event in self.events.things[events]:
            after, more = hear(after, event)
            bad |= more
        return self.memories.number(after), bad

    # -- what is found -------------------------------------------------------------------------------------------------

    def _note(self, bad: Bad, state: State, label: str) -> None:
        for kind in (Bad.REG, Bad.LIN, Bad.CONV):
            if bad & kind and kind not in self.result.traces:
                self.result.traces[kind] = self._trace(state, label)
        self.result.bad |= bad

    def _trace(self, state: State, last: str) -> list[str]:
        labels = [last]
        origin = self.came_from[state]
        while origin is not None:
            labels.append(origin[1])
            origin = self.came_from[origin[0]]
        return labels[::-1]

    # -- the end -------------------------------------------------------------------------------------------------------

    def _judge_end(self, state: State) -> None:
        """Everybody has ended: repair, read once more, and compare both sides."""
        if (state[0], state[1]) in self._settled:
            return
        self._settled.add((state[0], state[1]))
        world, memory = self.worlds.things[state[0]], self.memories.things[state[1]]
        ends = [(settle(self.case, world), "at the end, after repair")]
        if not self.case.design.waits_grace:
            ends += [
                (land(ends[0][0], request), f"at the end, after repair, {request} lands") for request in world.late
            ]
        for end, label in ends:
            read = Event(What.GOT, -2, read_alone(self.case, end))
            _, bad = hear(hear(memory, Event(What.READ, -2, ABSENT))[0], read)
            if self.case.converges and self.case.design.converges and not self._equal(end):
                bad |= Bad.CONV
            if bad:
                self._note(bad, state, f"{label}: {_sides(end)}, a read gets {shown(read.value)}")

    def _equal(self, world: World) -> bool:
        if world.hints:
            return False
        if world.s3 == world.local:
            return True
        # A file that only S3 had from the beginning stays one, and prune makes one of any.
        began_so = self.case.local == ABSENT and world.s3 == self.case.s3
        only_s3 = world.local == ABSENT and (began_so or self.case.prunes)
        return only_s3 and (self.case.design.spares_s3_only or not self.case.design.local_truth)


def settle(case: Case, world: World) -> World:
    """What the world is after the last repair, which meets no fault."""
    design = case.design
    if design.waits_grace:
        world = stop_time(world)
    if not case.converges:
        return world
    if design.repair is not None:
        number = len(case.processes)
        repair = Reconciler(design, number, Faults(), case.kinds, design.repair, drains=True, optional=True)
        for _ in range(_ENOUGH_REPAIRS):
            if world.hints:
                world = _alone(repair, world._replace(mutation_faults=0, get_faults=0, kills=0))[0]
                world = canonical(stop_time(world) if design.waits_grace else world)
    if design.verifies or case.verifies:
        keeps = world.local == ABSENT and design.spares_s3_only
        world = world if keeps else world._replace(s3=world.local)
    return world


def read_alone(case: Case, world: World) -> int:
    """What a read gets that nobody disturbs."""
    events = _alone(Reader(case.design, len(case.processes), Faults(), case.kinds, 1), world._replace(get_faults=0))[1]
    return events[-1].value


def _alone(process: Process, world: World) -> tuple[World, tuple[Event, ...]]:
    """Let one process run to its end; it has no choice on the way."""
    local = process.start
    heard: list[Event] = []
    while local:
        moves: list[Move] = list(process.moves(world, local))
        if len(moves) != 1:
            raise AssertionError(f"{process.name} has {len(moves)} ways to go on alone: {moves}")
        world, local = canonical(moves[0].world), moves[0].local
        heard += moves[0].events
    return world, tuple(heard)


def _sides(world: World) -> str:
    return f"disk {shown(world.local)}, S3 {shown(world.s3)}, {'hints left' if world.hints else 'no hint'}"
