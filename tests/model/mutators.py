"""Who saves and deletes.

A mutator follows a program of ``core.steps``. At the S3 step of a name that the disk lacks it may have to find out
what S3 has, and to bring that home; these are steps of their own here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from django_dualstorage.core.steps import Step
from tests.model.designs import Design, Program, is_remnant
from tests.model.processes import SENDS, Kinds, Operation
from tests.model.state import (
    ABSENT,
    ENDED,
    UNKNOWN,
    Answer,
    Event,
    Faults,
    Late,
    Local,
    Move,
    What,
    World,
    send,
    shown,
    unlock,
)

_UNSEEN: Final = frozenset({Step.STAGE, Step.STAMP})

# What a mutator does before, or instead of, its next step.
_PLAIN: Final = 0  # the step itself
_CAREFUL: Final = 1  # PUT if there is nothing, or a HEAD that asks
_LOOK: Final = 2  # something is in the way: which hints are there?
_HEAD: Final = 3  # and what is it?
_GET: Final = 4  # a file that only S3 has: fetch it
_WEIGH: Final = 5  # is what came still no remnant?
_HOME: Final = 6  # commit it
_TAKEN: Final = 7  # the name is taken: end without having done anything
_AGAIN: Final = 8  # begin once more


class _At(NamedTuple):
    """Where a mutator stands."""

    pc: int = 0
    todo: int = _PLAIN
    #: Whether the hint has to stay.
    dirty: int = 0
    #: Hints seen, or what is to be brought home.
    held: int = 0
    owner: int = UNKNOWN


class Mutator(Operation):
    """save (or delete, if ``value`` is ABSENT)."""

    start: Local = _At()

    def __init__(
        self,
        design: Design,
        number: int,
        faults: Faults,
        kinds: Kinds,
        value: int,
        *,
        exclusive: bool = False,
        deferred: bool = False,
    ) -> None:
        super().__init__(design, number, faults, kinds)
        self.value = value
        #: A create: it commits with ``link``, which refuses an existing name.
        self.exclusive = exclusive
        deletes = value == ABSENT
        self.name = f"{'delete' if deletes else 'create' if exclusive else 'save'} {number}"
        save, delete = design.save, design.delete
        if deferred:
            save, delete = design.save_deferred, design.delete_deferred
            self.name = f"deferred {self.name}"
        self.program = _seen(delete if deletes else save)
        if exclusive and self.program[0] is Step.PUT and design.asks_s3:
            self.start = _At(todo=_CAREFUL)
        #: Where a delete leaves its program for a file that only S3 has.
        home = _seen(design.delete_s3_only) if deletes and not deferred else ()
        self._home = home.index(Step.COMMIT) if home else -1

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        if len(local) == 1:
            yield from self.dying(world, local)
            return
        at = _At(*local)
        claims = self.exclusive and self.design.creates_are_exclusive
        begun = (self._event(What.CREATE if claims else What.WRITE),) if at == self.start else ()
        if at.pc == len(self.program):  # only the hint is left to remove
            yield self._end(world, f"{self.name}: forgets its hint", at, begun)
            return
        step = self.program[at.pc]
        if not begun:
            yield from self.deaths(world, self._on_the_wire(at, step), (self._event(What.KILLED),))
        taken = _ASIDE[at.todo](self, world, at) if at.todo in _ASIDE else self._take(world, at, step)
        for move in taken:
            yield move._replace(events=(*begun, *move.events))

    # -- the program -----------------------------------------------------------------------------------------------

    def _take(self, world: World, at: _At, step: Step) -> Iterator[Move]:
        label = f"{self.name}: {step.value}"
        if step in (Step.HINT, Step.LOCK):
            # Somebody else's unfinished business is not ours to clear.
            sticks = step is Step.HINT and self.design.sticky and world.hints
            for move in self.step_moves(world, label, step, ENDED):
                yield self._after(move.world, move.label, at._replace(dirty=1 if sticks else at.dirty))
        elif step in SENDS:
            yield from self._send(world, at, only_if_absent=False)
        elif step in (Step.COMMIT, Step.UNLINK):
            if self.exclusive and world.local != ABSENT and self.design.local_truth:
                yield self._taken(world, f"{label} refused", keeps=int(Step.PUT in self.program))
            else:
                what = "" if self.value == ABSENT else f" {shown(self.value)}"
                yield self._after(world._replace(local=self.value), f"{label}{what}", at)
        elif step is Step.CLEAR:
            if self.design.unlocks_first:
                yield Move(f"{self.name}: unlock", unlock(world, self.number), at._replace(pc=at.pc + 1))
            else:
                yield self._end(world, label, at, ())
        else:
            raise ValueError(f"A mutator cannot {step}.")

    def _send(self, world: World, at: _At, *, only_if_absent: bool) -> Iterator[Move]:
        for outcome, after, answer in send(
            world, self.number, self.value, late=self.faults.late, only_if_absent=only_if_absent
        ):
            said = f"{self.name}: {outcome}"
            if only_if_absent and answer in (Answer.REFUSED, Answer.REFUSED_AFTER_RETRY):
                yield self._in_the_way(after, said, at, retried=answer is Answer.REFUSED_AFTER_RETRY)
            elif self.design.raises and answer in (Answer.LOST, Answer.REFUSED):
                yield self._fail(after, said, keeps=1)
            else:
                kept = at.dirty if self.design.sticky or self.design.minds_own_attempts else 0
                yield self._after(after, said, at._replace(dirty=kept or int(self.dirty(answer))))

    def _after(self, world: World, label: str, at: _At) -> Move:
        pc = at.pc + 1
        if pc == len(self.program):
            # The program ends here and does not clear: the hint, if there is one, stays for repair.
            return Move(f"{label}, returns", self.leave(world), ENDED, (self._event(What.DONE),))
        return Move(label, world, _At(pc, self._todo(world, pc), at.dirty))

    def _todo(self, world: World, pc: int) -> int:
        """What comes before the step at ``pc``, by what the disk has."""
        if self.program[pc] is Step.PUT and self.design.asks_s3:
            if self.exclusive:
                return _TAKEN if world.local != ABSENT and self.design.local_truth else _CAREFUL
            if self.design.save_over_s3_only and world.local == ABSENT:
                return _CAREFUL
        if pc == self._home and world.local == ABSENT:
            return _GET
        return _PLAIN

    # -- what S3 alone has -----------------------------------------------------------------------------------------

    def _careful(self, world: World, at: _At) -> Iterator[Move]:
        if self.design.conditional:
            yield from self._send(world, at, only_if_absent=True)
            return
        if world.s3 != ABSENT:
            yield self._in_the_way(world, f"{self.name}: HEAD {shown(world.s3)}", at, retried=False)
        else:
            yield Move(f"{self.name}: HEAD 404", world, at._replace(todo=_PLAIN))
        yield from self._unanswered(world, "HEAD", at)

    def _in_the_way(self, world: World, label: str, at: _At, *, retried: bool) -> Move:
        """There is an object already."""
        at = at._replace(dirty=int(retried))
        if self.exclusive and (retried or not self.design.local_truth):
            return Move(label, world, at._replace(todo=_TAKEN))
        weighs = not retried or self.design.minds_own_attempts
        return Move(label, world, at._replace(todo=_LOOK if weighs else _GET))

    def _look(self, world: World, at: _At) -> Iterator[Move]:
        seen = self._others(world)
        if not seen:
            yield self._no_remnant(world, "no hint says that it is a remnant", at)
        else:
            yield Move(f"{self.name}: there are hints", world, at._replace(todo=_HEAD, held=seen))

    def _head(self, world: World, at: _At) -> Iterator[Move]:
        if world.s3 == ABSENT or is_remnant(at.held, self.kinds.deletions, world.s3_owner):
            text = f"{self.name}: HEAD {shown(world.s3)}, a remnant"
            yield Move(text, world, _At(at.pc, _PLAIN, at.dirty))
        else:
            yield self._no_remnant(world, f"HEAD {shown(world.s3)}, no remnant", at)
        yield from self._unanswered(world, "HEAD", at)

    def _no_remnant(self, world: World, text: str, at: _At) -> Move:
        todo = _TAKEN if self.exclusive else _GET
        return Move(f"{self.name}: {text}", world, _At(at.pc, todo, at.dirty))

    def _get(self, world: World, at: _At) -> Iterator[Move]:
        label = f"{self.name}: GET {shown(world.s3)}"
        if world.s3 == ABSENT:
            yield Move(label, world, at._replace(todo=_PLAIN))
        else:
            yield Move(label, world, at._replace(todo=_WEIGH, held=world.s3, owner=world.s3_owner))
        yield from self._unanswered(world, "GET", at)

    def _weigh(self, world: World, at: _At) -> Iterator[Move]:
        if is_remnant(self._others(world), self.kinds.deletions, at.owner):
            yield Move(f"{self.name}: it is a remnant", world, _At(at.pc, _PLAIN, at.dirty))
        else:
            yield Move(f"{self.name}: it is no remnant", world, at._replace(todo=_HOME, owner=UNKNOWN))

    def _bring_home(self, world: World, at: _At) -> Iterator[Move]:
        label = f"{self.name}: commit {shown(at.held)}, brought home"
        if world.local == ABSENT:
            yield Move(label, world._replace(local=at.held), _At(at.pc, _PLAIN, at.dirty))
        elif self.value == ABSENT:
            yield self._taken(world, f"{label}, refused", keeps=at.dirty)
        else:
            # The next name is the same where overwriting is allowed.
            after = self.leave(self.close(world, clean=not at.dirty))
            yield Move(f"{label}, refused; begins once more", after, _At(0, _AGAIN))

    def _give_up(self, world: World, at: _At) -> Iterator[Move]:
        yield self._taken(world, f"{self.name}: clear", keeps=at.dirty)

    def _unanswered(self, world: World, what: str, at: _At) -> Iterator[Move]:
        """A question to S3 fails."""
        if not world.get_faults:
            return
        after, label = world._replace(get_faults=world.get_faults - 1), f"{self.name}: {what} 503"
        if self.design.raises:
            yield self._fail(after, label, keeps=at.dirty)
        else:
            yield self._after(after, label, _At(at.pc, dirty=1))

    def _others(self, world: World) -> int:
        """The hints by which it weighs an object."""
        own = 1 << self.number
        seen = (world.hints if self.design.weighs_all_hints else world.dead) & ~own
        return seen | own if self.design.minds_own_attempts and self.value != ABSENT else seen

    # -- the end ---------------------------------------------------------------------------------------------------

    def _event(self, what: What) -> Event:
        return Event(what, self.number, self.value)

    def _end(self, world: World, label: str, at: _At, events: tuple[Event, ...]) -> Move:
        world = self.leave(self.close(world, clean=not at.dirty))
        return Move(
            f"{label}{' (dirty)' if at.dirty else ''}, returns", world, ENDED, (*events, self._event(What.DONE))
        )

    def _fail(self, world: World, label: str, *, keeps: int) -> Move:
        what = What.VOID if self.design.raising_is_void or not keeps else What.FAILED
        world = self.leave(self.close(world, clean=not keeps))
        return Move(f"{label}, raises", world, ENDED, (self._event(what),))

    def _taken(self, world: World, label: str, *, keeps: int) -> Move:
        world = self.leave(self.close(world, clean=not keeps))
        return Move(f"{label}, raises: the name is taken", world, ENDED, (self._event(What.VOID),))

    def _on_the_wire(self, at: _At, step: Step) -> Late | None:
        """The mutation that it is about to send."""
        if (
            step not in SENDS
            or at.todo not in (_PLAIN, _CAREFUL)
            or (at.todo == _CAREFUL and not self.design.conditional)
        ):
            return None
        return Late(self.number, self.value, at.todo == _CAREFUL)


def _seen(program: Program) -> Program:
    return tuple(step for step in program if step not in _UNSEEN)


_ASIDE: Final = {
    _CAREFUL: Mutator._careful,
    _LOOK: Mutator._look,
    _HEAD: Mutator._head,
    _GET: Mutator._get,
    _WEIGH: Mutator._weigh,
    _HOME: Mutator._bring_home,
    _TAKEN: Mutator._give_up,
}
