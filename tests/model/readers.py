"""Who reads, and by which rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.model.designs import Design, Journal, ReadRule
from tests.model.processes import Process
from tests.model.state import ABSENT, ENDED, Event, Faults, Local, Move, What, World, shown

# What a read does next.
_BEGIN: Final = 0
_DISK: Final = 1  # open the local file, whatever it is
_GET: Final = 2  # GET, whatever it is
_CERTIFY: Final = 3  # GET beside an open local file
_ASK: Final = 4  # there is no local file: is there a hint?
_FETCH: Final = 5  # there is none either: GET
_AGAIN_DISK: Final = 6
_AGAIN_HINT: Final = 7
_OVER: Final = 8  # as _BEGIN, but the read has long begun

#: Readers have operations of their own, beyond the numbers of processes.
FIRST_READ: Final = 100


class Reader(Process):
    """Reads ``times`` times. Stands at (which read, what is next, value, restarts)."""

    start = (0, _BEGIN, ABSENT, 0)
    #: A read that has started over so often asks the disk alone. The code has more patience; less finds more here.
    patience: Final = 1

    def __init__(self, design: Design, number: int, faults: Faults, times: int) -> None:
        super().__init__(design, number, faults)
        self.times = times
        self.name = f"read {number}"

    def moves(self, world: World, local: Local) -> Iterator[Move]:
        read, todo, value, restarts = local
        if todo == _BEGIN:
            began = Event(What.READ, FIRST_READ + 10 * self.number + read, ABSENT)
            for move in self._begin(world, read, restarts):
                yield move._replace(events=(began, *move.events))
        elif todo == _OVER:
            yield from self._begin(world, read, restarts)
        elif todo == _DISK:
            yield self._got(world, "disk", read, world.local)
        elif todo == _GET:
            yield from self._get(world, read)
        elif todo == _CERTIFY:
            yield from self._certify(world, read, value)
        elif todo == _ASK:
            if self._is_marked(world):
                yield self._got(world, "no local file, a hint", read, ABSENT)
            else:
                yield Move(f"{self.name}: no hint", world, (read, _FETCH, ABSENT, restarts))
        elif todo == _FETCH:
            yield from self._fetch(world, read, restarts)
        else:
            yield from self._look_again(world, local)

    def holds_time(self, local: Local) -> bool:
        # It has seen no hint, so every hint there is now came later: the read has lasted longer than the grace period
        # of a request that was sent since.
        return self.design.bounds_reads and local[1] in (_FETCH, _AGAIN_DISK, _AGAIN_HINT)

    def _begin(self, world: World, read: int, restarts: int) -> Iterator[Move]:
        rule = self.design.reads
        if rule is ReadRule.LOCAL:
            yield self._got(world, "disk", read, world.local)
        elif rule in (ReadRule.S3, ReadRule.S3_FIRST):
            yield from self._get(world, read)
        elif rule is ReadRule.MARKED:
            todo = _DISK if self._is_marked(world) else _GET
            yield Move(f"{self.name}: {'marked' if todo == _DISK else 'not marked'}", world, (read, todo, ABSENT, 0))
        elif world.local != ABSENT:
            yield Move(f"{self.name}: opens {shown(world.local)}", world, (read, _CERTIFY, world.local, restarts))
        elif rule is ReadRule.STAMPED:
            yield self._got(world, "no local file", read, ABSENT)
        else:
            yield Move(f"{self.name}: no local file", world, (read, _ASK, ABSENT, restarts))

    def _get(self, world: World, read: int) -> Iterator[Move]:
        falls_back = self.design.reads is not ReadRule.S3
        if world.s3 == ABSENT and falls_back:
            yield Move(f"{self.name}: GET 404", world, (read, _DISK, ABSENT, 0))
        else:
            yield self._got(world, "GET", read, world.s3)
        if world.get_faults:
            after = world._replace(get_faults=world.get_faults - 1)
            if falls_back:
                yield Move(f"{self.name}: GET 503", after, (read, _DISK, ABSENT, 0))
            else:
                yield self._raised(after, read)

    def _certify(self, world: World, read: int, value: int) -> Iterator[Move]:
        if world.s3 == value:
            yield self._got(world, "GET, stamp equal", read, world.s3)
        else:
            yield self._got(world, f"GET {shown(world.s3)}, stamp differs, the open local file", read, value)
        if world.get_faults:
            after = world._replace(get_faults=world.get_faults - 1)
            yield self._got(after, "GET 503, the open local file", read, value)

    def _fetch(self, world: World, read: int, restarts: int) -> Iterator[Move]:
        if self.design.reads is ReadRule.ONE_LOOK or world.s3 == ABSENT:
            yield self._got(world, "GET", read, world.s3)
        else:
            first = _AGAIN_HINT if self.design.hint_before_disk else _AGAIN_DISK
            yield Move(f"{self.name}: GET {shown(world.s3)}", world, (read, first, world.s3, restarts))
        if world.get_faults:
            yield self._raised(world._replace(get_faults=world.get_faults - 1), read)

    def _look_again(self, world: World, local: Local) -> Iterator[Move]:
        read, todo, value, restarts = local
        disk = todo == _AGAIN_DISK
        if world.local != ABSENT if disk else self._is_marked(world):
            found = f"{'local file' if disk else 'hint'} appeared"
            if restarts == self.patience:
                yield Move(f"{self.name}: {found}, the disk must do", world, (read, _DISK, ABSENT, 0))
            else:
                yield Move(f"{self.name}: {found}, starts over", world, (read, _OVER, ABSENT, restarts + 1))
        elif disk is self.design.hint_before_disk:
            yield self._got(world, "nothing new", read, value)
        else:
            then = _AGAIN_HINT if disk else _AGAIN_DISK
            yield Move(
                f"{self.name}: still no {'local file' if disk else 'hint'}", world, (read, then, value, restarts)
            )

    def _is_marked(self, world: World) -> bool:
        # A row in somebody else's transaction is not visible before its commit.
        return bool(world.dead if self.design.journal is Journal.ROWS else world.hints)

    def _got(self, world: World, how: str, read: int, value: int) -> Move:
        return self._next(
            world, f"{how} => {shown(value)}", Event(What.GOT, FIRST_READ + 10 * self.number + read, value)
        )

    def _raised(self, world: World, read: int) -> Move:
        return self._next(world, "raises", Event(What.RAISED, FIRST_READ + 10 * self.number + read, ABSENT))

    def _next(self, world: World, text: str, event: Event) -> Move:
        read = (event.operation - FIRST_READ) % 10 + 1
        local = ENDED if read == self.times else (read, _BEGIN, ABSENT, 0)
        return Move(f"{self.name}: {text}", world, local, (event,))
