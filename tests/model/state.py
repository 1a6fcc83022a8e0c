"""What the processes share, and what one step does to it.

Everything is a small int or a tuple of them: a search keeps hundreds of thousands of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NamedTuple

#: No file, no object. Any other value is a version; its number is its stamp, so stamps never collide here.
ABSENT: Final = -1
#: The lock is free.
FREE: Final = -1
#: The object was written by nobody whose hint is left.
UNKNOWN: Final = -1
#: The owner of a marker that all operations on a name share.
SHARED: Final = 15


def shown(value: int) -> str:
    """A version, for people."""
    return "nothing" if value == ABSENT else f"v{value}"


class Late(NamedTuple):
    """A mutation that its sender has given up on and that the server may still carry out."""

    owner: int
    value: int
    only_if_absent: bool

    def __str__(self) -> str:
        return f"the late {'DELETE' if self.value == ABSENT else f'PUT {shown(self.value)}'} of {self.owner}"


class World(NamedTuple):
    """Both sides, the journal, the lock, and how many faults may still happen."""

    local: int
    s3: int
    #: Whose request wrote the object (``ds-op`` in its metadata).
    s3_owner: int
    #: Hints of operations that live, one bit for each.
    live: int
    #: Hints of operations that ended without clearing them.
    dead: int
    #: Operations whose last S3 mutation was sent less than a grace period ago.
    fresh: int
    lock: int
    late: tuple[Late, ...]
    mutation_faults: int
    get_faults: int
    kills: int

    @property
    def hints(self) -> int:
        """All hints: a reader cannot tell dead from live."""
        return self.live | self.dead


@dataclass(frozen=True)
class Faults:
    """How many of each fault a run may meet."""

    mutations: int = 0
    gets: int = 0
    kills: int = 0
    #: Whether a failed mutation may be carried out later.
    late: bool = False


def begin(local: int, s3: int, faults: Faults) -> World:
    """A world in which nothing has happened yet."""
    return World(local, s3, UNKNOWN, 0, 0, 0, FREE, (), faults.mutations, faults.gets, faults.kills)


def canonical(world: World, *, hints_are_remembered: bool = False) -> World:
    """The same world without what nobody can find out any more, so that equal futures are one state."""
    known = world.hints
    owner = world.s3_owner
    if owner != UNKNOWN and not known >> owner & 1 and not hints_are_remembered:
        owner = UNKNOWN
    for request in world.late:
        known |= 1 << request.owner
    fresh = world.fresh & known
    if owner == world.s3_owner and fresh == world.fresh:
        return world
    return world._replace(s3_owner=owner, fresh=fresh)


# -- what a monitor hears ----------------------------------------------------------------------------------------------


class What(IntEnum):
    """What happened to an operation, as its caller sees it."""

    WRITE = 0  # a save or delete begins
    CREATE = 1  # a save begins that may only happen where there is no file
    READ = 2  # a read begins
    DONE = 3  # the write was acknowledged
    FAILED = 4  # the write raised; it may have happened nevertheless
    VOID = 5  # the write raised, and the design promises that nothing happened
    KILLED = 6
    GOT = 7  # the read returned a value
    RAISED = 8  # the read raised


class Event(NamedTuple):
    """One such thing. ``value`` is what was written or read."""

    what: What
    operation: int
    value: int


# -- what a process does -----------------------------------------------------------------------------------------------

#: Where a process stands; its meaning is its class's own business.
Local = tuple[int, ...]
#: Where a process stands that has ended.
ENDED: Final[Local] = ()


class Move(NamedTuple):
    """One step that a process may take now."""

    label: str
    world: World
    local: Local
    events: tuple[Event, ...] = ()


class Answer(Enum):
    """What a process learns about the S3 mutation that it sent."""

    CLEAN = "ok"
    RETRIED = "ok after an SDK retry"
    REFUSED = "412"
    #: The object that is in the way may be what our own first attempt wrote.
    REFUSED_AFTER_RETRY = "412 after an SDK retry"
    LOST = "error"


def send(
    world: World, owner: int, value: int, *, late: bool, only_if_absent: bool = False
) -> Iterator[tuple[str, World, Answer]]:
    """Every outcome of one PUT (or DELETE, if ``value`` is ABSENT)."""
    what = (
        "S3 DELETE" if value == ABSENT else f"S3 PUT {shown(value)}{' if there is nothing' if only_if_absent else ''}"
    )
    request = Late(owner, value, only_if_absent)
    before = world
    # The hint says "sent" before the request leaves.
    world = world._replace(fresh=world.fresh | 1 << owner)
    applied, answer = _apply(world, request)
    # Of a request that was refused nothing can land, so there is nothing to wait for, whatever the hint says.
    yield f"{what}: {answer.value}", before if answer is Answer.REFUSED else applied, answer
    if not world.mutation_faults:
        return
    left = world.mutation_faults - 1
    yield f"{what}: refused with 503", world._replace(mutation_faults=left), Answer.LOST
    if answer is Answer.CLEAN:
        yield f"{what}: done, but the answer is lost", applied._replace(mutation_faults=left), Answer.LOST
    if late:
        waiting = _with_late(world, request)._replace(mutation_faults=left)
        yield f"{what}: timed out, still on its way", waiting, Answer.LOST
        retried, second = _apply(waiting, request)
        outcome = Answer.RETRIED if second is Answer.CLEAN else Answer.REFUSED_AFTER_RETRY
        yield f"{what}: timed out, still on its way; SDK retry: {second.value}", retried, outcome
        if answer is Answer.CLEAN and only_if_absent:
            after = applied._replace(mutation_faults=left)
            yield f"{what}: done, but the answer is lost; SDK retry: 412", after, Answer.REFUSED_AFTER_RETRY


def lose_sender(world: World, request: Late) -> World:
    """The sender is killed with its request on the wire."""
    world = _with_late(world, request)
    return world._replace(fresh=world.fresh | 1 << request.owner, mutation_faults=world.mutation_faults - 1)


def land(world: World, request: Late) -> World:
    """A late request arrives."""
    rest = tuple(other for other in world.late if other != request)
    return _apply(world._replace(late=rest), request)[0]


def outlive(world: World, owner: int) -> World:
    """The grace period of one operation's last mutation passes: nothing of it can land any more."""
    rest = tuple(request for request in world.late if request.owner != owner)
    return world._replace(late=rest, fresh=world.fresh & ~(1 << owner))


def stop_time(world: World) -> World:
    """Every grace period has passed."""
    return world._replace(late=(), fresh=0)


def abandon(world: World, owner: int) -> World:
    """The operation ends without clearing its hint; the kernel frees its locks."""
    bit = 1 << owner
    if world.live & bit:
        world = world._replace(live=world.live & ~bit, dead=world.dead | bit)
    return unlock(world, owner)


def unlock(world: World, owner: int) -> World:
    """Release the lock if ``owner`` holds it."""
    return world._replace(lock=FREE) if world.lock == owner else world


def _apply(world: World, request: Late) -> tuple[World, Answer]:
    if request.only_if_absent and world.s3 != ABSENT:
        return world, Answer.REFUSED
    owner = UNKNOWN if request.value == ABSENT else request.owner
    return world._replace(s3=request.value, s3_owner=owner), Answer.CLEAN


def _with_late(world: World, request: Late) -> World:
    return world._replace(late=tuple(sorted({*world.late, request})))
