"""Which processes meet, on which files, with which faults; and what must come of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from django_dualstorage.core.phases import LADDER, Phase, policy_of
from tests.model.designs import Design, design_of
from tests.model.explore import Case, Result, search
from tests.model.monitors import Bad
from tests.model.mutators import Mutator
from tests.model.processes import (
    CautiousBackfill,
    CreatingBackfill,
    Kinds,
    Outsider,
    Process,
    Pruner,
    Reconciler,
)
from tests.model.readers import Reader
from tests.model.state import ABSENT, Faults

EVERYTHING: Final = Bad.REG | Bad.LIN | Bad.CONV


class Level(Enum):
    """How unkind the world is; each level has the faults of those before it."""

    QUIET = "no fault"
    KILLS = "kill -9"
    ERRORS = "+ S3 errors"
    LATE = "+ late requests"

    @property
    def faults(self) -> Faults:
        """The faults of this level."""
        return _FAULTS[self]


_FAULTS: Final = {
    Level.QUIET: Faults(),
    Level.KILLS: Faults(kills=1),
    Level.ERRORS: Faults(1, 1, 1),
    Level.LATE: Faults(1, 1, 1, late=True),
}


class Role(Enum):
    """What one process of a scenario does."""

    SAVE = "save"
    CREATE = "create"
    DELETE = "delete"
    SAVE_DEFERRED = "save, deferred"
    CREATE_DEFERRED = "create, deferred"
    DELETE_DEFERRED = "delete, deferred"
    BACKFILL = "backfill"
    #: Reconcile of a name that somebody asked for, whether or not the disk has it.
    COPY = "copy"
    REPAIR = "repair"
    OUTSIDER = "a write behind the storage's back"
    PRUNE = "prune"
    READ = "read"
    READ_TWICE = "read twice"


_DELETIONS: Final = (Role.DELETE, Role.DELETE_DEFERRED)
_DEFERRED: Final = (Role.SAVE_DEFERRED, Role.CREATE_DEFERRED, Role.DELETE_DEFERRED)
_RECONCILES: Final = (Role.BACKFILL, Role.COPY, Role.REPAIR)
_OVERWRITTEN: Final = 0


@dataclass(frozen=True)
class Scenario:
    """Who meets, and what both sides have when they do."""

    name: str
    roles: tuple[Role, ...]
    local: int = _OVERWRITTEN
    s3: int = _OVERWRITTEN

    @property
    def verifies(self) -> bool:
        """Whether only a comparison of both sides can find what happened."""
        return Role.OUTSIDER in self.roles


def _scenario(name: str, *roles: Role, local: int = _OVERWRITTEN, s3: int = _OVERWRITTEN) -> Scenario:
    return Scenario(name, roles, local, s3)


_R = Role
#: Every design meets these.
CORE: Final = (
    _scenario("two saves", _R.SAVE, _R.SAVE, _R.READ_TWICE),
    _scenario("create, delete", _R.SAVE, _R.DELETE, _R.READ_TWICE, local=ABSENT, s3=ABSENT),
    _scenario("overwrite, delete", _R.SAVE, _R.DELETE, _R.READ_TWICE),
    _scenario("backfill, save", _R.SAVE, _R.BACKFILL, _R.READ_TWICE, s3=ABSENT),
    _scenario("backfill, delete", _R.DELETE, _R.BACKFILL, _R.READ_TWICE, s3=ABSENT),
    _scenario("repair, overwrite, delete", _R.SAVE, _R.DELETE, _R.REPAIR, _R.READ),
)
#: What the built design must stand besides.
MORE: Final = (
    _scenario("repair, create, delete", _R.SAVE, _R.DELETE, _R.REPAIR, _R.READ, local=ABSENT, s3=ABSENT),
    _scenario("repair, two saves", _R.SAVE, _R.SAVE, _R.REPAIR, _R.READ),
    _scenario("repair, create", _R.SAVE, _R.REPAIR, _R.READ_TWICE, local=ABSENT, s3=ABSENT),
    _scenario("repair, overwrite", _R.SAVE, _R.REPAIR, _R.READ_TWICE),
    _scenario("repair, backfill, delete", _R.DELETE, _R.BACKFILL, _R.REPAIR, _R.READ, s3=ABSENT),
    _scenario("two creates", _R.CREATE, _R.CREATE, _R.READ_TWICE, local=ABSENT, s3=ABSENT),
    _scenario("two creates, repair", _R.CREATE, _R.CREATE, _R.REPAIR, _R.READ, local=ABSENT, s3=ABSENT),
    _scenario("two repairs, create", _R.SAVE, _R.REPAIR, _R.REPAIR, _R.READ, local=ABSENT, s3=ABSENT),
    _scenario("two repairs, delete", _R.DELETE, _R.REPAIR, _R.REPAIR, _R.READ),
    _scenario("two deletes", _R.DELETE, _R.DELETE, _R.READ_TWICE),
    _scenario("outsider, save", _R.OUTSIDER, _R.SAVE, _R.READ_TWICE),
    _scenario("outsider, delete", _R.OUTSIDER, _R.DELETE, _R.READ_TWICE),
    _scenario("outsider, backfill", _R.OUTSIDER, _R.BACKFILL, _R.READ_TWICE, s3=ABSENT),
    _scenario("outsider, repair, save", _R.OUTSIDER, _R.SAVE, _R.REPAIR, _R.READ),
    _scenario("deferred save, repair", _R.SAVE_DEFERRED, _R.REPAIR, _R.READ_TWICE),
    _scenario("deferred save, delete", _R.SAVE_DEFERRED, _R.DELETE, _R.REPAIR, _R.READ, local=ABSENT, s3=ABSENT),
    _scenario("deferred delete, save", _R.DELETE_DEFERRED, _R.SAVE, _R.REPAIR, _R.READ),
    _scenario("deferred save, deferred delete", _R.SAVE_DEFERRED, _R.DELETE_DEFERRED, _R.READ_TWICE),
    _scenario("deferred save, backfill", _R.SAVE_DEFERRED, _R.BACKFILL, _R.READ_TWICE),
    _scenario("deferred delete, backfill", _R.DELETE_DEFERRED, _R.BACKFILL, _R.READ_TWICE),
    _scenario("save, copy", _R.SAVE, _R.COPY, _R.READ_TWICE, local=ABSENT, s3=ABSENT),
    _scenario("prune, save", _R.PRUNE, _R.SAVE, _R.READ_TWICE),
    _scenario("prune, delete", _R.PRUNE, _R.DELETE, _R.READ_TWICE),
)


def _s3_only(name: str, *roles: Role) -> Scenario:
    return _scenario(f"S3 only: {name}", *roles, local=ABSENT)


#: Only S3 has the file, and there is no hint. Not among these: what LIMITS forbids.
S3_ONLY: Final = (
    _s3_only("save", _R.SAVE, _R.READ_TWICE),
    _s3_only("delete", _R.DELETE, _R.READ_TWICE),
    _s3_only("copy, backfill", _R.COPY, _R.BACKFILL, _R.READ_TWICE),
    _s3_only("save, repair", _R.SAVE, _R.REPAIR, _R.READ_TWICE),
    _s3_only("delete, repair", _R.DELETE, _R.REPAIR, _R.READ_TWICE),
    _s3_only("save, copy", _R.SAVE, _R.COPY, _R.READ_TWICE),
    _s3_only("delete, copy", _R.DELETE, _R.COPY, _R.READ_TWICE),
    _s3_only("two saves", _R.SAVE, _R.SAVE, _R.READ_TWICE),
    _s3_only("two deletes", _R.DELETE, _R.DELETE, _R.READ_TWICE),
    _s3_only("save, delete", _R.SAVE, _R.DELETE, _R.READ_TWICE),
    _s3_only("save, delete, repair", _R.SAVE, _R.DELETE, _R.REPAIR, _R.READ),
    _s3_only("create", _R.CREATE, _R.REPAIR, _R.READ_TWICE),
    _s3_only("create, save", _R.CREATE, _R.SAVE, _R.READ_TWICE),
    _s3_only("create, delete", _R.CREATE, _R.DELETE, _R.READ_TWICE),
    _s3_only("create, delete, repair", _R.CREATE, _R.DELETE, _R.REPAIR, _R.READ),
    _s3_only("outsider, save", _R.OUTSIDER, _R.SAVE, _R.READ_TWICE),
    _s3_only("outsider, create", _R.OUTSIDER, _R.CREATE, _R.READ_TWICE),
    _s3_only("outsider, copy", _R.OUTSIDER, _R.COPY, _R.READ_TWICE),
    _s3_only("deferred save, repair", _R.SAVE_DEFERRED, _R.REPAIR, _R.READ_TWICE),
    _s3_only("deferred save, save", _R.SAVE_DEFERRED, _R.SAVE, _R.READ_TWICE),
    _s3_only("deferred save, delete", _R.SAVE_DEFERRED, _R.DELETE, _R.READ_TWICE),
    _s3_only("deferred delete, repair", _R.DELETE_DEFERRED, _R.REPAIR, _R.READ_TWICE),
    _s3_only("deferred delete, save", _R.DELETE_DEFERRED, _R.SAVE, _R.READ_TWICE),
    _s3_only("deferred delete, create", _R.DELETE_DEFERRED, _R.CREATE, _R.READ_TWICE),
)


def play(design: Design, scenario: Scenario, level: Level, *, until: Bad = EVERYTHING) -> Result:
    """Search one scenario in which every process has one design."""
    faults = level.faults
    if scenario.local == ABSENT != scenario.s3 and faults.mutations and not design.raises:
        design = replace(design, creates_are_exclusive=False)  # S3 may not answer whether it has the name: see LIMITS
    cast = [(design, role) for role in scenario.roles]
    case = Case(
        design,
        build(cast, faults),
        kinds_of(cast),
        scenario.local,
        scenario.s3,
        faults,
        verifies=scenario.verifies,
        prunes=Role.PRUNE in scenario.roles,
    )
    return search(case, until=until)


def play_all(design: Design, scenarios: Iterable[Scenario], level: Level, *, until: Bad = EVERYTHING) -> Result:
    """Search several, and join what was found; stop once every kind in ``until`` was."""
    found = Result()
    for scenario in scenarios:
        if any(_lacks(design, role) for role in scenario.roles):
            continue
        found.add(play(design, scenario, level, until=until), scenario.name)
        if found.bad & until == until:
            break
    return found


def _lacks(design: Design, role: Role) -> bool:
    return (
        (role in _DEFERRED and not design.save_deferred)
        or (role is Role.BACKFILL and design.backfill is None)
        or (role in (Role.REPAIR, Role.COPY) and design.repair is None)
        # What is written behind the storage's back where S3 is the truth is nobody's version.
        or (role is Role.OUTSIDER and not design.local_truth)
    )


Cast = Sequence[tuple[Design, Role]]


def kinds_of(cast: Cast) -> Kinds:
    """What the hints of these processes say."""
    return Kinds(_mask(cast, _DELETIONS), _mask(cast, _RECONCILES))


def _mask(cast: Cast, roles: tuple[Role, ...]) -> int:
    return sum(1 << number for number, (_, role) in enumerate(cast) if role in roles)


def build(cast: Cast, faults: Faults) -> list[Process]:
    """The processes of a scenario, numbered; each save writes a version of its own, its number plus one."""
    kinds = kinds_of(cast)
    return [_process(design, role, number, faults, kinds) for number, (design, role) in enumerate(cast)]


def _process(design: Design, role: Role, number: int, faults: Faults, kinds: Kinds) -> Process:
    if role in (Role.READ, Role.READ_TWICE):
        return Reader(design, number, faults, kinds, 2 if role is Role.READ_TWICE else 1)
    if role is Role.OUTSIDER:
        return Outsider(design, number, faults, kinds, number + 1)
    if role is Role.PRUNE:
        return Pruner(design, number, faults, kinds)
    if role in (Role.REPAIR, Role.COPY):
        assert design.repair is not None
        return Reconciler(design, number, faults, kinds, design.repair, drains=True, optional=role is Role.REPAIR)
    if role is Role.BACKFILL:
        assert design.backfill is not None
        if design.looks_again:
            return CautiousBackfill(design, number, faults, kinds)
        kind = CreatingBackfill if design.creates_only else Reconciler
        drains = design.backfill_drains
        return kind(design, number, faults, kinds, design.backfill, drains=drains, expects=True)
    deferred = role in _DEFERRED
    value = ABSENT if role in _DELETIONS else number + 1
    exclusive = role in (Role.CREATE, Role.CREATE_DEFERRED)
    return Mutator(design, number, faults, kinds, value, exclusive=exclusive, deferred=deferred)


# -- processes of two phases -------------------------------------------------------------------------------------------

_A, _B = 0, 1
_MEETINGS: Final = (
    ((_A, _R.SAVE), (_B, _R.SAVE)),
    ((_A, _R.SAVE), (_B, _R.DELETE)),
    ((_B, _R.SAVE), (_A, _R.DELETE)),
)
_REPAIRS: Final = (
    ((_A, _R.SAVE), (_B, _R.REPAIR)),
    ((_B, _R.SAVE), (_A, _R.REPAIR)),
    ((_A, _R.DELETE), (_B, _R.REPAIR)),
    ((_B, _R.DELETE), (_A, _R.REPAIR)),
)
_CREATES: Final = (
    ((_A, _R.CREATE), (_B, _R.SAVE)),
    ((_A, _R.SAVE), (_B, _R.CREATE)),
    ((_A, _R.CREATE), (_B, _R.DELETE)),
    ((_B, _R.CREATE), (_A, _R.DELETE)),
)
_FILES: Final = ((_OVERWRITTEN, _OVERWRITTEN), (ABSENT, ABSENT))
#: The file of a site that has one that only S3 has.
ONLY_S3: Final = ((ABSENT, _OVERWRITTEN),)


def pairs_of_phases() -> Iterator[tuple[Phase, Phase]]:
    """Every pair once, each phase beside itself included."""
    for index, one in enumerate(LADDER):
        for other in LADDER[index:]:
            yield one, other


def stands_late_requests(one: Phase, other: Phase) -> bool:
    """Whether a request that lands late can do no harm: where the disk is the truth. See LIMITS for the rest."""
    return all(policy_of(phase).local_truth for phase in (one, other))


def play_pair(
    one: Phase,
    other: Phase,
    level: Level,
    *,
    until: Bad = Bad.REG | Bad.LIN,
    files: Sequence[tuple[int, int]] = _FILES,
) -> Result:
    """Search what processes of two phases do to each other. Convergence is not asked: the phases differ in it."""
    designs = [design_of(one), design_of(other)]
    if not stands_late_requests(one, other):
        # A reader that asks S3 alone sees what a save wrote whose answer got lost, though the save raised.
        designs = [replace(design, raising_is_void=False) for design in designs]
    found = Result()
    for local, s3 in files:
        # A file that only S3 has: every way of writing it matters.
        meetings = _MEETINGS if local != ABSENT or s3 == ABSENT else (*_MEETINGS, *_CREATES)
        repaired = level is Level.LATE or files is ONLY_S3 or not stands_late_requests(one, other)
        for meeting in (*meetings, *(_REPAIRS if repaired else ())):
            if any(_lacks(designs[side], role) for side, role in meeting):
                continue
            roles = [*meeting, (_A, _R.READ), (_B, _R.READ)]
            cast = [(designs[side], role) for side, role in roles]
            case = Case(designs[0], build(cast, level.faults), kinds_of(cast), local, s3, level.faults, converges=False)
            name = ", ".join(f"{designs[side].name} {role.value}" for side, role in meeting)
            found.add(search(case, until=until), name)
            if found.bad & until == until:
                return found
    return found
