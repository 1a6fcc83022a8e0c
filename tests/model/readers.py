"""Who reads, and by which rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.model.designs import Design, Hides, Journal, ReadRule
from tests.model.processes import Kinds, Process
from tests.model.state import ABSENT, ENDED, UNKNOWN, Event, Faults, Local, Move, What, World, shown

# What a read does next.
_BEGIN: Final = 0
_DISK: Final = 1  # open the local file, whatever it is
_GET: Final = 2  # GET, whatever it is
_CERTIFY: Final = 3  # GET beside an open local file
_ASK: Final = 4  # there is no local file: does a hint say that it was deleted?
_FETCH: Final = 5  # none does: GET
_AGAIN_DISK: Final = 6
_AGAIN_HINT: Final = 7
_OVER: Final = 8  # as _BEGIN, but the read has long begun
_RECHECK: Final = 9  # it seems absent: is there really no local file?

#: Readers have operations of their own, beyond the numbers of processes.
FIRST_READ: Final = 100


class _At(NamedTuple):
    """Where a read stands."""

    read: int
    todo: int = _BEGIN
    restarts: int = 0
    #: What it has got, and who wrote that.
    value: int = ABSENT
    owner: int = UNKNOWN
    #: The hints that were there before its GET ...
    before: int = 0
    #: ... and whose requests of then may grow old while it reads.
    aging: int = 0


class Reader(Process):
    """Reads ``times`` times."""

    start = _At(0)
    #: A read that has started over so often asks the disk alone. The code has more patience; less finds more here.
    patience: Final = 1

    def __init__(self, design: Design, number: int, faults: Faults, kinds: Kinds, times: int) -> None:
        super().__init__(design, number, faults, kinds)
        self.times = times
        self.name = f"read {number}"

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        at = _At(*local)
        if at.todo == _BEGIN:
            began = Event(What.READ, self._operation(at), ABSENT)
            for move in self._begin(world, at):
                yield move._replace(events=(began, *move.events))
        elif at.todo == _OVER:
            yield from self._begin(world, at)
        elif at.todo == _DISK:
            yield self._got(world, "disk", at, world.local)
        elif at.todo == _GET:
            yield from self._get(world, at)
        elif at.todo == _CERTIFY:
            yield from self._certify(world, at)
        elif at.todo == _ASK:
            yield self._ask(world, at)
        elif at.todo == _FETCH:
            yield from self._fetch(world, at)
        elif at.todo == _RECHECK:
            if world.local == ABSENT:
                yield self._got(world, "still no local file", at, ABSENT)
            else:
                yield self._over(world, "local file appeared", at)
        else:
            yield self._look_again(world, at)

    def aging(self, local: Local) -> int:
        # The read does not last: the requests that were sent since its first look are too young to be outlived.
        at = _At(*local)
        if self.design.bounds_reads and at.todo in (_FETCH, _AGAIN_DISK, _AGAIN_HINT):
            return at.aging
        return -1

    def _begin(self, world: World, at: _At) -> Iterator[Move]:
        rule = self.design.reads
        if rule is ReadRule.LOCAL:
            yield self._got(world, "disk", at, world.local)
        elif rule in (ReadRule.S3, ReadRule.S3_FIRST):
            yield from self._get(world, at)
        elif rule is ReadRule.MARKED:
            todo = _DISK if self._hints(world) else _GET
            yield self._on(world, "marked" if todo == _DISK else "not marked", at._replace(todo=todo))
        elif world.local != ABSENT:
            yield self._on(world, f"opens {shown(world.local)}", at._replace(todo=_CERTIFY, value=world.local))
        elif rule is ReadRule.STAMPED:
            yield self._got(world, "no local file", at, ABSENT)
        else:
            yield self._on(world, "no local file", at._replace(todo=_ASK))

    def _get(self, world: World, at: _At) -> Iterator[Move]:
        falls_back = self.design.reads is not ReadRule.S3
        if world.s3 == ABSENT and falls_back:
            yield self._on(world, "GET 404", at._replace(todo=_DISK))
        else:
            yield self._got(world, "GET", at, world.s3)
        if world.get_faults:
            after = world._replace(get_faults=world.get_faults - 1)
            if falls_back:
                yield self._on(after, "GET 503", at._replace(todo=_DISK))
            else:
                yield self._raised(after, at)

    def _certify(self, world: World, at: _At) -> Iterator[Move]:
        if world.s3 == at.value:
            yield self._got(world, "GET, stamp equal", at, world.s3)
        else:
            yield self._got(world, f"GET {shown(world.s3)}, stamp differs, the open local file", at, at.value)
        if world.get_faults:
            after = world._replace(get_faults=world.get_faults - 1)
            yield self._got(after, "GET 503, the open local file", at, at.value)

    def _ask(self, world: World, at: _At) -> Move:
        hints = self._hints(world)
        hides = self.design.hides
        deleted = hints & self.kinds.deletions and hides in (Hides.REMNANTS, Hides.DELETES)
        if deleted or (hints and hides is Hides.ANY):
            return self._absent(world, f"no local file, a hint{' of a delete' if deleted else ''}", at)
        before = hints if self.design.remembers_hints else 0
        return self._on(
            world,
            f"no hint{' of a delete' if hints else ''}",
            at._replace(todo=_FETCH, before=before, aging=world.fresh),
        )

    def _fetch(self, world: World, at: _At) -> Iterator[Move]:
        if world.s3 == ABSENT:
            yield self._absent(world, "GET 404", at)
        elif self.design.reads is ReadRule.ONE_LOOK:
            yield self._got(world, "GET", at, world.s3)
        else:
            todo = _AGAIN_HINT if self.design.hint_before_disk else _AGAIN_DISK
            got = at._replace(todo=todo, value=world.s3, owner=world.s3_owner)
            yield self._on(world, f"GET {shown(world.s3)}", got)
        if world.get_faults:
            yield self._raised(world._replace(get_faults=world.get_faults - 1), at)

    def _look_again(self, world: World, at: _At) -> Move:
        last = (at.todo == _AGAIN_DISK) is self.design.hint_before_disk
        if at.todo == _AGAIN_DISK:
            if world.local != ABSENT:
                return self._over(world, "local file appeared", at)
            then, found = _AGAIN_HINT, "still no local file"
        else:
            hints = self._hints(world) | at.before
            if self.design.hides is Hides.ANY and hints:
                return self._over(world, "hint appeared", at)
            if self.design.hidden(hints, self.kinds.deletions, at.owner):
                return self._absent(world, "a hint says that this is no file", at)
            then, found = _AGAIN_DISK, "no hint says that this is no file"
        if last:
            return self._got(world, found, at, at.value)
        return self._on(world, found, at._replace(todo=then))

    def _absent(self, world: World, how: str, at: _At) -> Move:
        if self.design.rechecks_disk:
            return self._on(world, how, _At(at.read, _RECHECK, at.restarts))
        return self._got(world, how, at, ABSENT)

    def _over(self, world: World, found: str, at: _At) -> Move:
        if at.restarts == self.patience:
            return self._on(world, f"{found}, the disk must do", _At(at.read, _DISK))
        return self._on(world, f"{found}, starts over", _At(at.read, _OVER, at.restarts + 1))

    def _hints(self, world: World) -> int:
        # A row in somebody else's transaction is not visible before its commit.
        return world.dead if self.design.journal is Journal.ROWS else world.hints

    def _operation(self, at: _At) -> int:
        return FIRST_READ + 10 * self.number + at.read

    def _on(self, world: World, text: str, at: _At) -> Move:
        return Move(f"{self.name}: {text}", world, at)

    def _got(self, world: World, how: str, at: _At, value: int) -> Move:
        return self._next(world, f"{how} => {shown(value)}", at, What.GOT, value)

    def _raised(self, world: World, at: _At) -> Move:
        return self._next(world, "raises", at, What.RAISED, ABSENT)

    def _next(self, world: World, text: str, at: _At, what: What, value: int) -> Move:
        local = ENDED if at.read + 1 == self.times else _At(at.read + 1)
        return Move(f"{self.name}: {text}", world, local, (Event(what, self._operation(at), value),))
