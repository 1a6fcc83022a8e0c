"""What the built design does not promise, and what it would not keep if it left out one of its rarer rules: each with
the run that shows it.

A test holds that these runs do fail, and that the built design stands the runs of its rarer rules: when the design
learns better, it says so here too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from django_dualstorage.core.phases import Phase
from django_dualstorage.core.steps import Step
from tests.model.designs import BUILT, STRICT, Design, design_of, swapped
from tests.model.explore import Case, Result, search
from tests.model.monitors import Bad
from tests.model.scenarios import Level, Role, build, kinds_of
from tests.model.state import ABSENT, Faults


@dataclass(frozen=True)
class Run:
    """One thing that is not promised, or would not be kept."""

    name: str
    #: What keeps a site out of it, or the rule of the built design that does.
    instead: str
    cast: tuple[tuple[Design, Role], ...]
    faults: Faults
    kind: Bad
    local: int = ABSENT
    s3: int = 0

    def show(self, change: Callable[[Design], Design] = lambda design: design, *, until: Bad | None = None) -> Result:
        """The search that finds it; with ``change``, what is left of it then."""
        cast = [(change(design), role) for design, role in self.cast]
        case = Case(
            cast[0][0],
            build(cast, self.faults),
            kinds_of(cast),
            self.local,
            self.s3,
            self.faults,
            converges=any(role is Role.REPAIR for _, role in cast),
        )
        return search(case, until=until or self.kind)


@dataclass(frozen=True)
class Lesson:
    """A rule of the built design, and the run that goes wrong without it."""

    run: Run
    leave_out: Callable[[Design], Design]

    def show(self) -> Result:
        """The search without the rule."""
        return self.run.show(self.leave_out)

    def show_built(self) -> Result:
        """The search with it, which finds nothing."""
        return self.run.show(until=Bad.REG | Bad.LIN | Bad.CONV)


_DUAL: Final = design_of(Phase.DUAL)
_MIRROR: Final = design_of(Phase.MIRROR)
# Beside a phase where S3 is the truth, an operation that raised may have happened.
_STRICT_BELOW: Final = replace(STRICT, raising_is_void=False)
_PRIMARY: Final = design_of(Phase.S3_PRIMARY)
_S3: Final = design_of(Phase.S3)
_UNBOUNDED: Final = replace(BUILT, bounds_reads=False)
_SLOW: Final = replace(STRICT, dies_slowly=True)
_QUIET: Final = Level.QUIET.faults
_TWO_LATE: Final = Faults(mutations=2, late=True)


def _hinted_first(design: Design) -> Design:
    return replace(design, delete=swapped(design.delete, Step.LOCK, Step.HINT))


LESSONS: Final = (
    Lesson(
        Run(
            "a read says that a file is gone which was brought home meanwhile",
            "Before a read says 'absent' it looks at the disk once more, and starts over if that has the file.",
            ((STRICT, Role.DELETE), (STRICT, Role.READ_TWICE)),
            _QUIET,
            Bad.LIN,
        ),
        lambda design: replace(design, rechecks_disk=False),
    ),
    Lesson(
        Run(
            "the hint of a delete hides a file, and a save that is already at it brings the file home",
            "A delete writes its hint under the lock.",
            ((BUILT, Role.SAVE), (BUILT, Role.DELETE), (BUILT, Role.READ_TWICE)),
            _QUIET,
            Bad.LIN,
        ),
        _hinted_first,
    ),
    Lesson(
        Run(
            "after an SDK retry an overwrite brings home what its own first attempt wrote, and then raises",
            "An object of the operation's own is none that only S3 has.",
            ((STRICT, Role.SAVE), (STRICT, Role.READ)),
            _TWO_LATE,
            Bad.REG,
            s3=ABSENT,
        ),
        lambda design: replace(design, minds_own_attempts=False),
    ),
    Lesson(
        Run(
            "the first attempt of an overwrite lands after the file was deleted, and no hint tells",
            "A refusal after an SDK retry leaves the hint, however clean the PUT after it.",
            ((BUILT, Role.SAVE), (BUILT, Role.DELETE), (BUILT, Role.READ)),
            Level.LATE.faults,
            Bad.REG,
        ),
        lambda design: replace(design, minds_own_attempts=False),
    ),
    Lesson(
        Run(
            "the kernel releases the lock of a killed save before that of its hint, and its remnant is brought home",
            "Under the lock, weigh an object by all hints but one's own: nobody else who lives can have written it.",
            ((_SLOW, Role.SAVE), (_SLOW, Role.DELETE), (_SLOW, Role.READ_TWICE)),
            Level.KILLS.faults,
            Bad.LIN,
            s3=ABSENT,
        ),
        lambda design: replace(design, weighs_all_hints=False),
    ),
    Lesson(
        Run(
            "beside s3-primary, a save over a file that only S3 has hides it from dual-strict",
            "Where S3 is the truth, too, a save brings home what it overwrites.",
            ((_STRICT_BELOW, Role.READ), (_PRIMARY, Role.SAVE)),
            _QUIET,
            Bad.REG,
        ),
        lambda design: design if design.local_truth else replace(design, save_over_s3_only=()),
    ),
)

LIMITS: Final = (
    Run(
        "beside mirror, a save over a file that only S3 has hides it from dual",
        "The step between mirror and dual is refused while there are such files.",
        ((_DUAL, Role.READ), (_MIRROR, Role.SAVE)),
        _QUIET,
        Bad.REG,
    ),
    Run(
        "a create takes the name of a file that only S3 has, if S3 does not answer",
        "dual-strict, where the create is raised.",
        ((BUILT, Role.CREATE), (BUILT, Role.READ)),
        Level.ERRORS.faults,
        Bad.LIN,
    ),
    Run(
        "a deferred create takes the name of a file that only S3 has",
        "Bring such files home first; a deferred save does not ask S3.",
        ((BUILT, Role.CREATE_DEFERRED), (BUILT, Role.READ)),
        _QUIET,
        Bad.LIN,
    ),
    Run(
        "a file written behind the storage's back while the S3-only file of that name is deleted comes and goes",
        "Write through the storage.",
        ((BUILT, Role.OUTSIDER), (BUILT, Role.DELETE), (BUILT, Role.READ_TWICE)),
        _QUIET,
        Bad.LIN,
    ),
    Run(
        "a read that takes longer than a grace period between its two looks returns a save that failed",
        "Start over when the second look comes too late.",
        ((_UNBOUNDED, Role.SAVE), (_UNBOUNDED, Role.REPAIR), (_UNBOUNDED, Role.READ_TWICE)),
        Level.KILLS.faults,
        Bad.LIN,
        s3=ABSENT,
    ),
    Run(
        "where S3 is the truth, a late request undoes an acknowledged save",
        "Conditional requests, where the server honours them; plain S3 storage does no better.",
        ((_S3, Role.SAVE), (_S3, Role.SAVE), (_S3, Role.READ)),
        Level.LATE.faults,
        Bad.REG,
        local=0,
    ),
)
