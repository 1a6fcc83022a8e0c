"""What is compared: the design that is built, made from ``core.steps``, and the designs that fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from django_dualstorage.core import steps
from django_dualstorage.core.phases import Phase, Reads, policy_of
from django_dualstorage.core.steps import Step

Program = tuple[Step, ...]


class Journal(Enum):
    """What an operation leaves behind for repair."""

    NONE = "none"
    #: One marker for the name, whoever works on it.
    SHARED = "shared"
    #: One hint for each operation.
    HINTS = "hints"
    #: One row for each operation, in the caller's database transaction: a kill takes it back.
    ROWS = "rows"


class ReadRule(Enum):
    """Whom a read asks."""

    LOCAL = "the disk"
    S3 = "S3"
    S3_FIRST = "S3, else the disk"
    MARKED = "the disk if the name is marked, else S3, else the disk"
    STAMPED = "S3 if its stamp equals the local version, else the disk"
    ONE_LOOK = "STAMPED; files that only S3 has if nothing hides them"
    TWO_LOOKS = "ONE_LOOK, and a second look after the GET"


class Hides(Enum):
    """Which hints say that an object without a local file is none."""

    REMNANTS = "that of a delete, and that of the operation which wrote the object"
    ANY = "any"
    DELETES = "that of a delete"
    WRITERS = "that of the operation which wrote the object"
    NONE = "none"


@dataclass(frozen=True)
class Reconciliation:
    """The three ways of making the other side equal to the truth; they part at READ."""

    #: The other side gets what the truth has (PUT, or COMMIT where S3 is the truth).
    give: Program
    #: It loses what the truth has not (DELETE, or UNLINK where S3 is the truth).
    take: Program
    nothing: Program

    def __post_init__(self) -> None:
        for program in self.ways:
            if program[: self.fork] != self.give[: self.fork]:
                raise ValueError(f"{program} differs from {self.give} before READ, when nothing is decided yet.")

    @property
    def ways(self) -> tuple[Program, Program, Program]:
        """All three."""
        return self.give, self.take, self.nothing

    @property
    def fork(self) -> int:
        """Where the ways part."""
        return self.give.index(Step.READ) + 1

    def without(self, *dropped: Step) -> Reconciliation:
        """The same without some steps."""
        return Reconciliation(*(without(program, *dropped) for program in self.ways))


@dataclass(frozen=True)
class Design:
    """How processes of one design behave."""

    name: str
    save: Program
    delete: Program
    reads: ReadRule
    journal: Journal = Journal.NONE
    backfill: Reconciliation | None = None
    repair: Reconciliation | None = None
    save_deferred: Program = ()
    delete_deferred: Program = ()
    #: An overwrite of a file that only S3 has: SAVE with a detour, COMMIT, back to before PUT. Empty: it never asks.
    save_over_s3_only: Program = ()
    #: A delete of such a file: DELETE with a detour, COMMIT. Empty: no detour.
    delete_s3_only: Program = ()
    #: A save asks S3 before it takes a name that the disk lacks.
    asks_s3: bool = False
    #: The server honours If-None-Match; else the question is a HEAD.
    conditional: bool = True
    #: The disk decides what a file is.
    local_truth: bool = True
    hides: Hides = Hides.ANY
    #: An S3 failure is raised to the caller.
    raises: bool = False
    #: An operation that raised has changed nothing that a reader may see.
    raising_is_void: bool = False
    #: A create never happens over a file, nor over one that only S3 has.
    creates_are_exclusive: bool = True
    #: Only the creator of a shared marker may remove it.
    sticky: bool = False
    #: A 200 that took an SDK retry is not a clean answer.
    distrusts_retries: bool = False
    #: Repair removes a hint only when no request of its operation can land any more...
    waits_grace: bool = False
    #: ... which it must find out before it looks at the sides.
    judges_late: bool = False
    #: Repair removes other hints though its own answer was not clean.
    trusts_itself: bool = False
    #: The lock is released before the hint is removed.
    unlocks_first: bool = False
    #: Backfill compares versions; else it asks only whether S3 has the name.
    compares: bool = True
    #: Backfill is repair of a name that a walk over the disk found, so it drops hints too.
    backfill_drains: bool = False
    #: A reconcile whose answer was not clean removes the hints of those before it of which nothing can land any more
    #: and whose object S3 has not: its own stands for theirs.
    supersedes: bool = False
    #: Backfill creates with If-None-Match.
    creates_only: bool = False
    #: Backfill looks at the disk again after its PUT.
    looks_again: bool = False
    #: Without a local file, repair removes only what a hint accuses; S3 may be the only side that has the file.
    spares_s3_only: bool = False
    #: What makes both sides equal when everything has stopped is a comparison of both sides, not the journal.
    verifies: bool = False
    #: A read looks again at the hint before the disk.
    hint_before_disk: bool = False
    #: A read never takes longer than a grace period between its two looks.
    bounds_reads: bool = False
    #: A read weighs the hints that it saw before its GET too.
    remembers_hints: bool = False
    #: Backfill of a file that has vanished looks at S3 before it removes hints.
    looks_before_it_forgets: bool = False
    #: A killed process gives up the lock of the name before that of its hint.
    dies_slowly: bool = False

    #: A read says "absent" only after one more look at the disk.
    rechecks_disk: bool = False
    #: A save knows the object of its own first attempt, and that another attempt may still land.
    minds_own_attempts: bool = False
    #: A mutator that weighs an object counts all hints but its own, not only those of the dead.
    weighs_all_hints: bool = False

    def __post_init__(self) -> None:
        for program in (self.save, self.save_deferred):
            _require_order(program)
        _require_detour(self.save, self.save_over_s3_only)
        _require_detour(self.delete, self.delete_s3_only)

    def hidden(self, hints: int, deletions: int, owner: int) -> bool:
        """Whether, to a reader, ``hints`` say that an object without a local file is none."""
        if self.hides is Hides.DELETES:
            return bool(hints & deletions)
        return self.hides in (Hides.REMNANTS, Hides.WRITERS) and is_remnant(
            hints, deletions if self.hides is Hides.REMNANTS else 0, owner
        )

    @property
    def certifies(self) -> bool:
        """Whether reads compare stamps."""
        return self.reads in (ReadRule.STAMPED, ReadRule.ONE_LOOK, ReadRule.TWO_LOOKS)

    @property
    def converges(self) -> bool:
        """Whether the design claims that both sides become equal at all."""
        return self.verifies or self.repair is not None


def is_remnant(hints: int, deletions: int, owner: int) -> bool:
    """The rule of ``core.compare``: a hint of a delete, or of the operation that wrote the object."""
    return bool(hints & deletions or (owner >= 0 and hints >> owner & 1))


def without(program: Program, *dropped: Step) -> Program:
    """The program without some steps."""
    return tuple(step for step in program if step not in dropped)


def rebuilt(design: Design, name: str, change: Callable[[Program], Program], step: Step) -> Design:
    """The design with all programs changed that have this S3 step."""
    if step is Step.PUT:
        over = change(design.save_over_s3_only)
        return replace(design, name=name, save=change(design.save), save_over_s3_only=over)
    return replace(design, name=name, delete=change(design.delete), delete_s3_only=change(design.delete_s3_only))


def swapped(program: Program, one: Step, other: Step) -> Program:
    """The program with two steps in each other's place."""
    exchange = {one: other, other: one}
    return tuple(exchange.get(step, step) for step in program)


def _require_order(program: Program) -> None:
    """Refuse a program that sends or commits what it has not prepared."""
    if not {Step.STAGE, Step.STAMP} & set(program):
        return  # the simplest designs are told without preparations
    for needed in (Step.STAGE, Step.STAMP):
        for use in (Step.PUT, Step.COMMIT):
            if use in program and (needed not in program or program.index(use) < program.index(needed)):
                raise ValueError(f"{use.name} without {needed.name} before it in {program}.")


def _require_detour(plain: Program, detour: Program) -> None:
    """Refuse a way over a file that only S3 has which is not the plain way with a COMMIT around its S3 step."""
    if not detour:
        return
    at = detour.index(Step.COMMIT)
    back = at - 1 if detour[at - 1] is Step.PUT else at  # a PUT that was refused is sent again
    if detour != (*plain[:at], Step.COMMIT, *plain[back:]):
        raise ValueError(f"{detour} is not {plain} with a COMMIT at {at}.")


# -- the design that is built ------------------------------------------------------------------------------------------

RECONCILE: Final = Reconciliation(steps.RECONCILE_PUT, steps.RECONCILE_DELETE, steps.RECONCILE_NOTHING)
#: Where S3 is the truth.
RECONCILE_FROM_S3: Final = Reconciliation(steps.RECONCILE_HOME, steps.RECONCILE_QUARANTINE, steps.RECONCILE_NOTHING)

BUILT: Final = Design(
    "built",
    save=steps.SAVE,
    delete=steps.DELETE,
    save_deferred=steps.SAVE_DEFERRED,
    delete_deferred=steps.DELETE_DEFERRED,
    reads=ReadRule.TWO_LOOKS,
    journal=Journal.HINTS,
    backfill=RECONCILE,
    repair=RECONCILE,
    save_over_s3_only=steps.SAVE_OVER_S3_ONLY,
    asks_s3=True,
    hides=Hides.REMNANTS,
    distrusts_retries=True,
    waits_grace=True,
    spares_s3_only=True,
    raising_is_void=True,
    bounds_reads=True,
    backfill_drains=True,
    remembers_hints=True,
    looks_before_it_forgets=True,
    rechecks_disk=True,
    minds_own_attempts=True,
    weighs_all_hints=True,
    supersedes=True,
)
STRICT: Final = replace(
    BUILT,
    name="built, strict",
    raises=True,
    delete_s3_only=steps.DELETE_STRICT_S3_ONLY,
    # What must be raised can't be deferred.
    save_deferred=(),
    delete_deferred=(),
)


def design_of(phase: Phase) -> Design:
    """What processes of ``phase`` do."""
    policy = policy_of(phase)
    reads = {Reads.LOCAL: ReadRule.LOCAL, Reads.CERTIFIED: ReadRule.TWO_LOOKS, Reads.S3: ReadRule.S3}[policy.reads]
    if policy.writes_both:
        strict = policy.local_truth and not policy.queues_s3_errors
        return replace(
            BUILT if policy.queues_s3_errors else STRICT,
            name=str(phase),
            reads=reads,
            delete_s3_only=steps.DELETE_STRICT_S3_ONLY if strict else (),
            asks_s3=policy.sees_s3_only_files,
            local_truth=policy.local_truth,
            backfill=RECONCILE if policy.local_truth else RECONCILE_FROM_S3,
            repair=RECONCILE if policy.local_truth else RECONCILE_FROM_S3,
            spares_s3_only=policy.local_truth,
            # Where S3 is the truth, a lost answer leaves the caller in doubt.
            raising_is_void=policy.local_truth,
        )
    one_side = (steps.SAVE_LOCAL, steps.DELETE_LOCAL) if policy.writes_local else (steps.SAVE_S3, steps.DELETE_S3)
    return Design(
        str(phase),
        *one_side,
        reads=reads,
        raises=True,
        asks_s3=policy.sees_s3_only_files,
        local_truth=policy.local_truth,
    )


# -- designs that fail -------------------------------------------------------------------------------------------------

_BLIND: Final = Reconciliation((Step.READ, Step.PUT), (Step.READ, Step.DELETE), (Step.READ,))
_LOCAL_FIRST: Final = ((Step.COMMIT, Step.PUT), (Step.UNLINK, Step.DELETE))
_S3_FIRST: Final = ((Step.PUT, Step.COMMIT), (Step.DELETE, Step.UNLINK))


def _around(program: Program, *before: Step) -> Program:
    return (*before, *program, Step.CLEAR)


def _marked(name: str, *before: Step, sticky: bool = False) -> Design:
    reconcile = Reconciliation(*(_around(way, *before) for way in _BLIND.ways))
    save, delete = (_around(program, *before) for program in _LOCAL_FIRST)
    return Design(
        name,
        save,
        delete,
        ReadRule.MARKED,
        Journal.SHARED,
        reconcile,
        # Repair removes the marker that it found; it sets none.
        reconcile.without(Step.HINT),
        sticky=sticky,
        compares=False,
    )


N1: Final = Design("N1 naive: disk, then S3", *_LOCAL_FIRST, ReadRule.S3_FIRST, backfill=_BLIND, compares=False)
N2: Final = replace(N1, name="N2 N1, S3 errors raised", raises=True)
N3: Final = replace(N2, name="N3 N2, S3 first", save=_S3_FIRST[0], delete=_S3_FIRST[1])
N4: Final = replace(N1, name="N4 N1, backfill with If-None-Match that looks again", creates_only=True, looks_again=True)
J1: Final = _marked("J1 one marker for each name", Step.HINT)
J2: Final = _marked("J2 J1 under a lock", Step.LOCK, Step.HINT)
J3: Final = _marked("J3 J2, removed by its creator only", Step.LOCK, Step.HINT, sticky=True)
J4: Final = replace(J3, name="J4 J3, distrusts retries, waits a grace period", distrusts_retries=True, waits_grace=True)
O1: Final = Design(
    "O1 outbox row in the caller's transaction",
    _around(_LOCAL_FIRST[0], Step.LOCK, Step.HINT),
    _around(_LOCAL_FIRST[1], Step.LOCK, Step.HINT),
    ReadRule.MARKED,
    Journal.ROWS,
    backfill=_BLIND,
    repair=_marked("", Step.LOCK).repair,
    compares=False,
    creates_only=True,
    distrusts_retries=True,
    waits_grace=True,
)
M1: Final = Design(
    "M1 stamps alone, no verify", *_S3_FIRST, ReadRule.STAMPED, backfill=_BLIND, repair=_BLIND, waits_grace=True
)
PRIMARY: Final = design_of(Phase.S3_PRIMARY)
M1_VERIFIED: Final = replace(M1, name="M1 stamps alone, then verify", verifies=True)
M4: Final = replace(BUILT, name="M4 any hint hides, without the second look", reads=ReadRule.ONE_LOOK, hides=Hides.ANY)
LOCAL_FIRST: Final = replace(
    STRICT,
    name="M5 built strict, disk first",
    save=swapped(steps.SAVE, Step.PUT, Step.COMMIT),
    save_over_s3_only=(),
    asks_s3=False,
    delete_s3_only=(),
    delete=swapped(steps.DELETE, Step.DELETE, Step.UNLINK),
)
