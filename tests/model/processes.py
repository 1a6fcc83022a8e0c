"""Who takes steps: reconcilers (backfill and repair), writers behind the storage's back, and what all have in common.

A process is a program of :class:`Step` and what each step does. Steps that nobody else can see (STAGE, STAMP) are
taken together with the next one: nothing can come between that would make a difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, NamedTuple

from django_dualstorage.core.steps import Step
from tests.model.designs import Design, Journal, Reconciliation, is_remnant
from tests.model.state import (
    ABSENT,
    ENDED,
    FREE,
    SHARED,
    Answer,
    Event,
    Faults,
    Late,
    Local,
    Move,
    What,
    World,
    abandon,
    lose_sender,
    send,
    shown,
    unlock,
)

SENDS: Final = frozenset({Step.PUT, Step.DELETE})

#: Killed, and the kernel has not yet released the lock of the hint.
_DYING: Final[Local] = (-999,)


class Kinds(NamedTuple):
    """What the hints of a scenario's operations say, as masks."""

    deletions: int = 0
    reconciles: int = 0


class Process(ABC):
    """One process. ``number`` is its identity: its bit in the masks, its lock, its operations."""

    start: Local = (0,)
    #: It need not run: repair has nothing to do where nothing was left behind.
    optional = False

    def __init__(self, design: Design, number: int, faults: Faults, kinds: Kinds) -> None:
        self.design = design
        self.number = number
        self.faults = faults
        self.kinds = kinds
        self.name = f"{type(self).__name__} {number}"

    @abstractmethod
    def moves(self, world: World, local: Local) -> Iterator[Move]:
        """Every step that it may take now; none if it has to wait."""

    def minds_time(self, local: Local) -> bool:
        """Whether it will ask how long ago a mutation was sent."""
        return False

    def aging(self, local: Local) -> int:
        """The operations whose last request may grow old while it stands there; the others' it would not outlast."""
        return -1


class Operation(Process):
    """A process that follows a program and may be killed before any step."""

    def hint(self, world: World) -> World:
        """HINT."""
        owner = SHARED if self.design.journal is Journal.SHARED else self.number
        return world._replace(live=world.live | 1 << owner)

    def step_moves(self, world: World, label: str, step: Step, local: Local) -> Iterator[Move]:
        """What HINT and LOCK do, for everybody; ``local`` is where the process stands then."""
        if step is Step.HINT:
            yield Move(label, self.hint(world), local)
        elif world.lock == FREE:
            yield Move(label, world._replace(lock=self.number), local)

    def dying(self, world: World, local: Local) -> Iterator[Move]:
        """What the kernel does for a killed process that dies slowly."""
        if local == _DYING:
            yield Move(f"{self.name}: its hint's lock is released", self.leave(world), ENDED)

    def sending(self, world: World, value: int) -> Iterator[tuple[str, World, Answer]]:
        """PUT or DELETE, with every outcome."""
        yield from send(world, self.number, value, late=self.faults.late)

    def dirty(self, answer: Answer) -> bool:
        """Whether the object may still change, or did not change, after this answer."""
        return not (answer is Answer.CLEAN or (answer is Answer.RETRIED and not self.design.distrusts_retries))

    def close(self, world: World, *, clean: bool) -> World:
        """CLEAR: forget the hint if every answer was clean."""
        if self.design.journal is Journal.SHARED:
            return world._replace(live=world.live & ~(1 << SHARED)) if clean else world
        return world._replace(live=world.live & ~(1 << self.number)) if clean else world

    def leave(self, world: World) -> World:
        """The process has ended, one way or another."""
        return abandon(world, self.number)

    def deaths(self, world: World, sent: Late | None, events: tuple[Event, ...]) -> Iterator[Move]:
        """kill -9 before the next step, or while its request is on the wire."""
        if not world.kills:
            return
        if self.design.journal is Journal.ROWS:
            world = world._replace(live=world.live & ~(1 << self.number))
        after = self.leave(world)._replace(kills=world.kills - 1)
        yield Move(f"{self.name}: KILLED", after, ENDED, events)
        if self.design.dies_slowly:
            slowly = unlock(world, self.number)._replace(kills=world.kills - 1)
            yield Move(f"{self.name}: KILLED, its hint's lock still held", slowly, _DYING, events)
        if sent is not None and self.faults.late and world.mutation_faults:
            yield Move(f"{self.name}: KILLED with its request on the wire", lose_sender(after, sent), ENDED, events)


class Reconciler(Operation):
    """Makes the other side equal to the truth: backfill, or repair if it is ``optional``.

    Stands at (step, way, seen, drop, value, dirty, supersede): which of the three programs it follows, the hints that
    it saw dead, those of them of which nothing can land any more, what the truth has, the hints for which its own
    will stand if its answer is not clean.
    """

    _UNDECIDED: Final = 3
    start = (0, 3, 0, 0, ABSENT, 0, 0)

    def __init__(
        self,
        design: Design,
        number: int,
        faults: Faults,
        kinds: Kinds,
        ways: Reconciliation,
        *,
        drains: bool,
        optional: bool = False,
        expects: bool = False,
    ) -> None:
        super().__init__(design, number, faults, kinds)
        self.name = f"{'repair' if optional else 'backfill' if expects else 'reconcile'} {number}"
        self.ways = ways.ways
        self.drains = drains
        self.optional = optional
        #: A walk has found the file on the disk.
        self.expects = expects
        self._from_s3 = Step.COMMIT in ways.give

    def minds_time(self, local: Local) -> bool:
        if len(local) == 1 or not self.drains or not self.design.waits_grace:
            return False
        # After its look at the journal only a design that judges too late still asks.
        return (local[1] == self._UNDECIDED and not local[2]) or self.design.judges_late

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        if len(local) == 1:
            yield from self.dying(world, local)
            return
        pc, way, seen, drop, value, dirty, supersede = local
        if self.optional and pc == 0 and not world.hints:
            return
        program = self.ways[way] if way != self._UNDECIDED else self.ways[0]
        if pc == len(program):
            yield self._end(world, f"{self.name}: forgets its hint", local)
            return
        if pc < 0:
            yield from self._head(world, local)
            return
        step = program[pc]
        content = value if step is Step.PUT else ABSENT
        if pc:
            yield from self.deaths(world, Late(self.number, content, False) if step in SENDS else None, ())
        label = f"{self.name}: {step.value}"
        after = (pc + 1, way, seen, drop, value, dirty, supersede)
        if step in (Step.HINT, Step.LOCK):
            if step is Step.HINT and self.design.sticky and world.hints:
                after = (pc + 1, way, seen, drop, value, 1, supersede)
            yield from self.step_moves(world, label, step, after)
        elif step is Step.READ:
            yield self._look(world, local)
        elif step in SENDS:
            for outcome, then, answer in self.sending(world, content):
                unclean = dirty or int(self.dirty(answer))
                yield self._on(then, f"{self.name}: {outcome}", (pc + 1, way, seen, drop, value, unclean, supersede))
        elif step in (Step.COMMIT, Step.UNLINK):
            put = value if step is Step.COMMIT else ABSENT
            yield self._on(world._replace(local=put), f"{label} {shown(put)}", after)
        elif step is Step.CLEAR:
            if self.design.unlocks_first:
                yield Move(f"{self.name}: unlock", unlock(world, self.number), after)
            else:
                yield self._end(world, label, local)
        else:
            raise ValueError(f"A reconciler cannot {step}.")

    def _look(self, world: World, local: Local) -> Move:
        """The first half of READ: which hints are dead, which of these may be removed, what the disk has."""
        pc = local[0]
        seen = drop = 0
        if self.drains:
            seen = world.hints if self.design.journal is Journal.SHARED else world.dead
            drop = self._droppable(world, seen)
        text = f"{self.name}: sees hints of {_bits(seen)}, may drop {_bits(drop)}, disk {shown(world.local)}"
        supersede = seen & drop & self.kinds.reconciles if self.design.supersedes else 0
        if self.expects and world.local == ABSENT and not (self._from_s3 or self.design.looks_before_it_forgets):
            # The walk has lied: nothing is done, and S3 is not asked.
            return self._on(world, f"{text}: vanished", (pc + 1, 2, seen, drop, ABSENT, local[5], supersede))
        # The minus sign says that the second half is next.
        return Move(text, world, (-1 - pc, local[1], seen, drop, world.local, local[5], supersede))

    def _droppable(self, world: World, seen: int) -> int:
        """The hints of operations of which nothing can land any more."""
        if not self.design.waits_grace:
            return seen
        if self.design.journal is Journal.SHARED:  # a marker does not say whose request is fresh
            return 0 if world.fresh else seen
        return seen & ~world.fresh

    def _head(self, world: World, local: Local) -> Iterator[Move]:
        """The second half of READ: what S3 has, and so which way to go."""
        pc, _, seen, drop, value, dirty, supersede = local
        yield from self.deaths(world, None, ())
        give, take, nothing = 0, 1, 2
        way = nothing
        if self._from_s3:
            way = nothing if value == world.s3 else take if world.s3 == ABSENT else give
            value = world.s3
        elif value != ABSENT:
            has = world.s3 == value if self.design.compares or self.drains else world.s3 != ABSENT
            way = nothing if has else give
        elif (
            world.s3 != ABSENT
            and self.drains
            and (is_remnant(seen, self.kinds.deletions, world.s3_owner) or not self.design.spares_s3_only)
        ):
            way = take
        if world.s3_owner >= 0:
            supersede &= ~(1 << world.s3_owner)
        label = f"{self.name}: S3 has {shown(world.s3)}: {('give', 'take', 'nothing to do')[way]}"
        yield self._on(world, label, (-pc, way, seen, drop, value, dirty, supersede))
        if self.expects and self.design.backfill_drains and not seen and way == nothing and value != ABSENT:
            stale = f"{self.name}: S3 lacked it when it was listed"
            yield self._on(world, stale, (-pc, give, seen, drop, value, dirty, supersede))

    def _on(self, world: World, label: str, local: Local) -> Move:
        if local[0] < len(self.ways[local[1]]):
            return Move(label, world, local)
        return self._end(world, label, local)

    def _end(self, world: World, label: str, local: Local) -> Move:
        _, _, seen, drop, _, dirty, supersede = local
        if Step.HINT in self.ways[0]:
            world = self.close(world, clean=not dirty)
        if not self.drains or (dirty and not self.design.trusts_itself):
            drop = supersede
        elif self.design.judges_late:
            drop = self._droppable(world, seen)
        world = world._replace(dead=world.dead & ~drop)
        if self.design.journal is Journal.SHARED:
            world = world._replace(live=world.live & ~drop)
        return Move(f"{label}{' (dirty)' if dirty else ''}, ends", self.leave(world), ENDED)


class CautiousBackfill(Process):
    """Looks at the disk again after its PUT, and mends what has changed. Stands at (step, value)."""

    start = (0, ABSENT)

    def __init__(self, design: Design, number: int, faults: Faults, kinds: Kinds) -> None:
        super().__init__(design, number, faults, kinds)
        self.name = f"backfill {number}"

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        step, value = local
        if step == 0:
            if world.s3 != ABSENT:
                yield Move(f"{self.name}: S3 has it", world, ENDED)
            else:
                yield Move(f"{self.name}: S3 lacks it", world, (1, ABSENT))
        elif step == 1:
            yield Move(
                f"{self.name}: disk {shown(world.local)}", world, (2, world.local) if world.local >= 0 else ENDED
            )
        elif step in (2, 4):
            for outcome, after, _ in send(
                world, self.number, value, late=self.faults.late, only_if_absent=step == 2 and self.design.creates_only
            ):
                yield Move(f"{self.name}: {outcome}", after, (3, value))
        elif world.local == value:
            yield Move(f"{self.name}: disk unchanged", world, ENDED)
        else:
            yield Move(f"{self.name}: disk {shown(world.local)} now", world, (4, world.local))


class CreatingBackfill(Reconciler):
    """A backfill whose PUT says If-None-Match."""

    def dying(self, world: World, local: Local) -> Iterator[Move]:
        """What the kernel does for a killed process that dies slowly."""
        if local == _DYING:
            yield Move(f"{self.name}: its hint's lock is released", self.leave(world), ENDED)

    def sending(self, world: World, value: int) -> Iterator[tuple[str, World, Answer]]:
        yield from send(world, self.number, value, late=self.faults.late, only_if_absent=True)


class Outsider(Process):
    """Writes into MEDIA_ROOT behind the storage's back."""

    def __init__(self, design: Design, number: int, faults: Faults, kinds: Kinds, value: int) -> None:
        super().__init__(design, number, faults, kinds)
        self.value = value
        self.name = f"outsider {number}"

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        events = (Event(What.WRITE, self.number, self.value), Event(What.DONE, self.number, self.value))
        yield Move(f"{self.name}: writes v{self.value}", world._replace(local=self.value), ENDED, events)


class Pruner(Process):
    """Removes the local copy once S3 provably has it, under the lock and only without a hint."""

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        if local == (0,):
            if world.lock == FREE:
                yield Move(f"{self.name}: lock", world._replace(lock=self.number), (1,))
        elif local == (1,):
            fit = world.local != ABSENT and world.s3 == world.local and not world.hints
            after = world if fit else unlock(world, self.number)
            yield Move(f"{self.name}: {'equal' if fit else 'keeps it'}", after, (2,) if fit else ENDED)
        else:
            yield Move(f"{self.name}: unlink", unlock(world, self.number)._replace(local=ABSENT), ENDED)


def _bits(mask: int) -> str:
    return "{" + ", ".join(str(bit) for bit in range(mask.bit_length()) if mask >> bit & 1) + "}"
