"""What the built design does not promise, each with the run that shows it.

A test holds that these runs do fail, and that those with a remedy pass once they have it: when the design learns
better, it says so here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from django_dualstorage.core.phases import Phase
from tests.model.designs import BUILT, CURED, STRICT, Design, cured, design_of
from tests.model.explore import Case, Result, search
from tests.model.monitors import Bad
from tests.model.scenarios import Level, Role, build, kinds_of
from tests.model.state import ABSENT, Faults


@dataclass(frozen=True)
class Limit:
    """One thing that is not promised."""

    name: str
    #: What keeps a site out of it, or the remedy.
    instead: str
    cast: tuple[tuple[Design, Role], ...]
    faults: Faults
    kind: Bad
    local: int = ABSENT
    s3: int = 0
    #: Whether the remedy is in :func:`tests.model.designs.cured`.
    curable: bool = False

    def show(self) -> Result:
        """The search that finds it."""
        return self._search(self.kind, lambda design: design)

    def show_cured(self) -> Result:
        """The search that finds nothing any more."""
        return self._search(Bad.REG | Bad.LIN | Bad.CONV, cured)

    def _search(self, until: Bad, remedy: Callable[[Design], Design]) -> Result:
        cast = [(remedy(design), role) for design, role in self.cast]
        case = Case(
            cast[0][0],
            build(cast, self.faults),
            kinds_of(cast),
            self.local,
            self.s3,
            self.faults,
            converges=any(role is Role.REPAIR for _, role in cast),
        )
        return search(case, until=until)


_DUAL: Final = design_of(Phase.DUAL)
_MIRROR: Final = design_of(Phase.MIRROR)
# Beside a phase where S3 is the truth, an operation that raised may have happened.
_STRICT_BELOW: Final = replace(STRICT, raising_is_void=False)
_PRIMARY: Final = design_of(Phase.S3_PRIMARY)
_S3: Final = design_of(Phase.S3)
_UNBOUNDED: Final = replace(CURED, bounds_reads=False)
_SLOW: Final = replace(STRICT, dies_slowly=True)
_QUIET: Final = Level.QUIET.faults
_TWO_LATE: Final = Faults(mutations=2, late=True)

_CURABLE: Final = (
    Limit(
        "a read says that a file is gone which was brought home meanwhile",
        "Before saying 'absent', for whatever reason, look at the disk once more and start over if it has the file.",
        ((STRICT, Role.DELETE), (STRICT, Role.READ_TWICE)),
        _QUIET,
        Bad.LIN,
        curable=True,
    ),
    Limit(
        "the hint of a delete hides a file, and a save that is already at it brings the file home",
        "A delete writes its hint under the lock.",
        ((BUILT, Role.SAVE), (BUILT, Role.DELETE), (BUILT, Role.READ_TWICE)),
        _QUIET,
        Bad.LIN,
        curable=True,
    ),
    Limit(
        "after an SDK retry an overwrite brings home what its own first attempt wrote, and then raises",
        "An object of the operation's own is none that only S3 has.",
        ((STRICT, Role.SAVE), (STRICT, Role.READ)),
        _TWO_LATE,
        Bad.REG,
        s3=ABSENT,
        curable=True,
    ),
    Limit(
        "the first attempt of an overwrite lands after the file was deleted, and no hint tells",
        "A refusal after an SDK retry leaves the hint, however clean the PUT after it.",
        ((BUILT, Role.SAVE), (BUILT, Role.DELETE), (BUILT, Role.READ)),
        Level.LATE.faults,
        Bad.REG,
        curable=True,
    ),
    Limit(
        "the kernel releases the lock of a killed save before that of its hint, and its remnant is brought home",
        "Under the lock, weigh an object by all hints but one's own: nobody else who lives can have written it.",
        ((_SLOW, Role.SAVE), (_SLOW, Role.DELETE), (_SLOW, Role.READ_TWICE)),
        Level.KILLS.faults,
        Bad.LIN,
        s3=ABSENT,
        curable=True,
    ),
    Limit(
        "beside s3-primary, a save over a file that only S3 has hides it from dual-strict",
        "Bring such files home before the step, or let s3-primary bring home what it overwrites.",
        ((_STRICT_BELOW, Role.READ), (_PRIMARY, Role.SAVE)),
        _QUIET,
        Bad.REG,
        curable=True,
    ),
)

LIMITS: Final = (
    *_CURABLE,
    Limit(
        "beside mirror, a save over a file that only S3 has hides it from dual",
        "The step between mirror and dual is refused while there are such files.",
        ((_DUAL, Role.READ), (_MIRROR, Role.SAVE)),
        _QUIET,
        Bad.REG,
    ),
    Limit(
        "a create takes the name of a file that only S3 has, if S3 does not answer",
        "dual-strict, where the create is raised.",
        ((BUILT, Role.CREATE), (BUILT, Role.READ)),
        Level.ERRORS.faults,
        Bad.LIN,
    ),
    Limit(
        "a deferred create takes the name of a file that only S3 has",
        "Bring such files home first; a deferred save does not ask S3.",
        ((BUILT, Role.CREATE_DEFERRED), (BUILT, Role.READ)),
        _QUIET,
        Bad.LIN,
    ),
    Limit(
        "a file written behind the storage's back while the S3-only file of that name is deleted comes and goes",
        "Write through the storage.",
        ((BUILT, Role.OUTSIDER), (BUILT, Role.DELETE), (BUILT, Role.READ_TWICE)),
        _QUIET,
        Bad.LIN,
    ),
    Limit(
        "a read that takes longer than a grace period between its two looks returns a save that failed",
        "Start over when the second look comes too late.",
        ((_UNBOUNDED, Role.SAVE), (_UNBOUNDED, Role.REPAIR), (_UNBOUNDED, Role.READ_TWICE)),
        Level.KILLS.faults,
        Bad.LIN,
        s3=ABSENT,
    ),
    Limit(
        "where S3 is the truth, a late request undoes an acknowledged save",
        "Conditional requests, where the server honours them; plain S3 storage does no better.",
        ((_S3, Role.SAVE), (_S3, Role.SAVE), (_S3, Role.READ)),
        Level.LATE.faults,
        Bad.REG,
        local=0,
    ),
)
