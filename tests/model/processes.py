"""Who takes steps: mutators, reconcilers (backfill and repair), writers behind the storage's back.

A process is a program of :class:`Step` and what each step does. Steps that nobody else can see (STAGE, STAMP) are
taken together with the next one: nothing can come between that would make a difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final

from django_dualstorage.core.steps import Step
from tests.model.designs import Design, Journal, Program, Reconciliation
from tests.model.state import (
    ABSENT,
    ENDED,
    FREE,
    SHARED,
    Answer,
    Event,
    Faults,
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

_UNSEEN: Final = frozenset({Step.STAGE, Step.STAMP})
_SENDS: Final = frozenset({Step.PUT, Step.DELETE})


class Process(ABC):
    """One process. ``number`` is its identity: its bit in the masks, its lock, its operations."""

    start: Local = (0,)
    #: It need not run: repair has nothing to do where nothing was left behind.
    optional = False

    def __init__(self, design: Design, number: int, faults: Faults) -> None:
        self.design = design
        self.number = number
        self.faults = faults
        self.name = f"{type(self).__name__} {number}"

    @abstractmethod
    def moves(self, world: World, local: Local) -> Iterator[Move]:
        """Every step that it may take now; none if it has to wait."""

    def minds_time(self, local: Local) -> bool:
        """Whether it will ask how long ago a mutation was sent."""
        return False

    def holds_time(self, local: Local) -> bool:
        """Whether no grace period can pass while it stands there, because it would rather start over."""
        return False


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

    def deaths(self, world: World, sent: int | None, events: tuple[Event, ...]) -> Iterator[Move]:
        """kill -9 before the next step, or while its request is on the wire."""
        if not world.kills:
            return
        if self.design.journal is Journal.ROWS:
            world = world._replace(live=world.live & ~(1 << self.number))
        after = self.leave(world)._replace(kills=world.kills - 1)
        yield Move(f"{self.name}: KILLED", after, ENDED, events)
        if sent is not None and self.faults.late and world.mutation_faults:
            lost = lose_sender(after, self.number, sent)
            yield Move(f"{self.name}: KILLED with its request on the wire", lost, ENDED, events)


class Mutator(Operation):
    """save (or delete, if ``value`` is ABSENT). Stands at (step, dirty)."""

    start = (0, 0)

    def __init__(
        self,
        design: Design,
        number: int,
        faults: Faults,
        value: int,
        *,
        exclusive: bool = False,
        deferred: bool = False,
    ) -> None:
        super().__init__(design, number, faults)
        self.value = value
        #: A create: it commits with ``link``, which refuses an existing name.
        self.exclusive = exclusive
        self.name = f"{'delete' if value == ABSENT else 'create' if exclusive else 'save'} {number}"
        save, delete = design.save, design.delete
        if deferred:
            save, delete = design.save_deferred, design.delete_deferred
            self.name = f"deferred {self.name}"
        self.program: Program = tuple(step for step in (delete if value == ABSENT else save) if step not in _UNSEEN)

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        pc, dirty = local
        begun = (self._event(What.WRITE),) if pc == 0 else ()
        if pc == len(self.program):  # only the hint is left to remove
            yield self._end(world, f"{self.name}: forgets its hint", dirty, begun)
            return
        step = self.program[pc]
        if pc:
            yield from self.deaths(world, self.value if step in _SENDS else None, (self._event(What.KILLED),))
        label = f"{self.name}: {step.value}"
        if step in (Step.HINT, Step.LOCK):
            if step is Step.HINT and self.design.sticky and world.hints:
                dirty = 1  # somebody else's unfinished business: not ours to clear
            for move in self.step_moves(world, label, step, (pc + 1, dirty)):
                yield self._after(move.world, move.label, pc, dirty, begun)
        elif step in _SENDS:
            for outcome, after, answer in self.sending(world, self.value):
                unclean = dirty or int(self.dirty(answer))
                said = f"{self.name}: {outcome}"
                if self.design.raises and answer in (Answer.LOST, Answer.REFUSED):
                    yield self._fail(after, said, begun)
                else:
                    yield self._after(after, said, pc, unclean, begun)
        elif step in (Step.COMMIT, Step.UNLINK):
            if self.exclusive and world.local != ABSENT:
                yield self._fail(world, f"{label} refused, the name exists", begun)
            else:
                yield self._after(world._replace(local=self.value), f"{label}{self._what()}", pc, dirty, begun)
        elif step is Step.CLEAR:
            if self.design.unlocks_first:
                yield Move(f"{self.name}: unlock", unlock(world, self.number), (pc + 1, dirty), begun)
            else:
                yield self._end(world, label, dirty, begun)
        else:
            raise ValueError(f"A mutator cannot {step}.")

    def _what(self) -> str:
        return "" if self.value == ABSENT else f" {shown(self.value)}"

    def _event(self, what: What) -> Event:
        return Event(what, self.number, self.value)

    def _after(self, world: World, label: str, pc: int, dirty: int, events: tuple[Event, ...]) -> Move:
        if pc + 1 < len(self.program):
            return Move(label, world, (pc + 1, dirty), events)
        # The program ends here and does not clear: the hint, if there is one, stays for repair.
        return Move(f"{label}, returns", self.leave(world), ENDED, (*events, self._event(What.DONE)))

    def _end(self, world: World, label: str, dirty: int, events: tuple[Event, ...]) -> Move:
        world = self.leave(self.close(world, clean=not dirty))
        return Move(f"{label}{' (dirty)' if dirty else ''}, returns", world, ENDED, (*events, self._event(What.DONE)))

    def _fail(self, world: World, label: str, events: tuple[Event, ...]) -> Move:
        what = What.VOID if self.design.raising_is_void else What.FAILED
        return Move(f"{label}, raises", self.leave(world), ENDED, (*events, self._event(what)))


class Reconciler(Operation):
    """Makes S3 equal to what the disk says now: backfill, or repair if it ``drains`` the journal.

    Stands at (step, way, seen, drop, value, dirty): which of the three programs it follows, the hints that it saw
    dead, those of them that nothing can land of any more, what it read from the disk.
    """

    _UNDECIDED: Final = 3
    start = (0, 3, 0, 0, ABSENT, 0)

    def __init__(
        self,
        design: Design,
        number: int,
        faults: Faults,
        ways: Reconciliation,
        *,
        drains: bool,
        deletions: int = 0,
    ) -> None:
        super().__init__(design, number, faults)
        self.name = f"{'repair' if drains else 'backfill'} {number}"
        self.ways = (ways.put, ways.delete, ways.nothing)
        self.drains = drains
        self.optional = drains
        #: Operations whose hints say "delete".
        self.deletions = deletions
        self._fork = ways.fork
        #: READ is two steps: the journal and the disk, then the object.
        self._read = ways.fork - 1

    def minds_time(self, local: Local) -> bool:
        if not self.drains or not self.design.waits_grace:
            return False
        # After its look at the journal only a design that judges too late still asks.
        return (local[1] == self._UNDECIDED and not local[2]) or self.design.judges_late

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        pc, way, seen, drop, value, dirty = local
        if self.drains and pc == 0 and not world.hints:
            return
        program = self.ways[way] if way != self._UNDECIDED else self.ways[0]
        if pc == len(program):
            yield self._end(world, f"{self.name}: forgets its hint", local)
            return
        if pc < 0:
            yield from self._head(world, local)
            return
        step = program[pc]
        if pc:
            sent = {Step.PUT: value, Step.DELETE: ABSENT}.get(step)
            yield from self.deaths(world, sent, ())
        label = f"{self.name}: {step.value}"
        after = (pc + 1, way, seen, drop, value, dirty)
        if step in (Step.HINT, Step.LOCK):
            if step is Step.HINT and self.design.sticky and world.hints:
                after = (pc + 1, way, seen, drop, value, 1)
            yield from self.step_moves(world, label, step, after)
        elif step is Step.READ:
            yield self._look(world, local)
        elif step in _SENDS:
            content = value if step is Step.PUT else ABSENT
            for outcome, then, answer in self.sending(world, content):
                unclean = dirty or int(self.dirty(answer))
                yield self._on(then, f"{self.name}: {outcome}", (pc + 1, way, seen, drop, value, unclean))
        elif step is Step.CLEAR:
            if self.design.unlocks_first:
                yield Move(f"{self.name}: unlock", unlock(world, self.number), after)
            else:
                yield self._end(world, label, local)
        else:
            raise ValueError(f"A reconciler cannot {step}.")

    def _look(self, world: World, local: Local) -> Move:
        """The first half of READ: which hints are dead, which of these may be removed, what the disk has."""
        seen = drop = 0
        if self.drains:
            seen = world.hints if self.design.journal is Journal.SHARED else world.dead
            drop = self._droppable(world, seen)
        text = f"{self.name}: sees hints of {_bits(seen)}, may drop {_bits(drop)}, disk {shown(world.local)}"
        # The minus sign says that the second half is next.
        return Move(text, world, (-1 - local[0], local[1], seen, drop, world.local, local[5]))

    def _droppable(self, world: World, seen: int) -> int:
        """The hints of operations of which nothing can land any more."""
        if not self.design.waits_grace:
            return seen
        if self.design.journal is Journal.SHARED:  # a marker does not say whose request is fresh
            return 0 if world.fresh else seen
        return seen & ~world.fresh

    def _head(self, world: World, local: Local) -> Iterator[Move]:
        """The second half of READ: what S3 has, and so which way to go."""
        pc, _, seen, drop, value, dirty = local
        yield from self.deaths(world, None, ())
        put, delete, nothing = 0, 1, 2
        way = nothing
        if value != ABSENT:
            has = world.s3 == value if self.design.compares or self.drains else world.s3 != ABSENT
            way = nothing if has else put
        elif world.s3 != ABSENT and self.drains:
            accused = world.s3_owner >= 0 and seen >> world.s3_owner & 1
            if accused or seen & self.deletions or not self.design.spares_s3_only:
                way = delete
        label = f"{self.name}: S3 has {shown(world.s3)}: {('put', 'delete', 'nothing to do')[way]}"
        yield self._on(world, label, (-pc, way, seen, drop, value, dirty))

    def _on(self, world: World, label: str, local: Local) -> Move:
        if local[0] < len(self.ways[local[1]]):
            return Move(label, world, local)
        return self._end(world, label, local)

    def _end(self, world: World, label: str, local: Local) -> Move:
        _, _, seen, drop, _, dirty = local
        if Step.HINT in self.ways[0]:
            world = self.close(world, clean=not dirty)
        if self.drains and (not dirty or self.design.trusts_itself):
            if self.design.judges_late:
                drop = self._droppable(world, seen)
            world = world._replace(dead=world.dead & ~drop)
            if self.design.journal is Journal.SHARED:
                world = world._replace(live=world.live & ~drop)
        return Move(f"{label}{' (dirty)' if dirty else ''}, ends", self.leave(world), ENDED)


class CautiousBackfill(Process):
    """Looks at the disk again after its PUT, and mends what has changed. Stands at (step, value)."""

    start = (0, ABSENT)

    def __init__(self, design: Design, number: int, faults: Faults) -> None:
        super().__init__(design, number, faults)
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

    def sending(self, world: World, value: int) -> Iterator[tuple[str, World, Answer]]:
        yield from send(world, self.number, value, late=self.faults.late, only_if_absent=True)


class Outsider(Process):
    """Writes into MEDIA_ROOT behind the storage's back."""

    def __init__(self, design: Design, number: int, faults: Faults, value: int) -> None:
        super().__init__(design, number, faults)
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


def deletions_of(processes: Sequence[Process]) -> int:
    """The operations whose hints say "delete"."""
    return sum(1 << each.number for each in processes if isinstance(each, Mutator) and each.value == ABSENT)


def _bits(mask: int) -> str:
    return "{" + ", ".join(str(bit) for bit in range(mask.bit_length()) if mask >> bit & 1) + "}"
