"""What the search must find, for each design; the report and the tests both hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from django_dualstorage.core.steps import Step
from tests.model.designs import (
    BUILT,
    J1,
    J2,
    J3,
    J4,
    LOCAL_FIRST,
    M1,
    M1_VERIFIED,
    M4,
    N1,
    N2,
    N3,
    N4,
    O1,
    RECONCILE,
    STRICT,
    Design,
    swapped,
    without,
)
from tests.model.explore import Result
from tests.model.monitors import Bad
from tests.model.scenarios import CORE, MORE, EVERYTHING, Level, play_all


@dataclass(frozen=True)
class Expectation:
    """From which level on a design fails, and how; below that level it passes."""

    design: Design
    #: None: it passes everything.
    fails_from: Level | None
    kind: Bad = Bad.NOTHING

    def at(self, level: Level) -> Bad:
        """What the search must find at least."""
        levels = list(Level)
        fails = self.fails_from is not None and levels.index(level) >= levels.index(self.fails_from)
        return self.kind if fails else Bad.NOTHING

    def check(self, level: Level, *, long: bool) -> Result:
        """Search as far as is needed to see whether the expectation holds; for the long form, everywhere."""
        # A design that must fail has shown all it has to once it has; one that must pass is searched to the end.
        until = EVERYTHING if long or not self.at(level) else self.at(level)
        return play_all(self.design, self._scenarios(level, long=long), level, until=until)

    def holds(self, level: Level, result: Result) -> bool:
        """Whether ``result`` is what was expected."""
        expected = self.at(level)
        return result.bad & expected == expected if expected else not result.bad

    def _scenarios(self, level: Level, *, long: bool) -> Iterator[Scenario]:
        yield from CORE
        if not self.at(level) and self.design.spares_s3_only and (long or level in (Level.QUIET, Level.KILLS)):
            yield from MORE


_MUST_FAIL_AT_ONCE: Final = Level.QUIET

#: A raised delete of a file that only S3 has is a limit of its own, so the promise that a raised operation is void is
#: searched in the scenarios where there is none.
DESIGNS: Final = (
    Expectation(N1, Level.QUIET, Bad.REG),
    Expectation(N2, Level.QUIET, Bad.REG),
    Expectation(N3, Level.QUIET, Bad.REG),
    Expectation(N4, Level.QUIET, Bad.REG),
    Expectation(J1, Level.QUIET, EVERYTHING),
    Expectation(J2, Level.LATE, EVERYTHING),
    Expectation(J3, Level.LATE, EVERYTHING),
    Expectation(J4, None),
    Expectation(O1, Level.QUIET, EVERYTHING),
    Expectation(M1, Level.QUIET, Bad.CONV),
    Expectation(M1_VERIFIED, None),
    Expectation(M4, Level.QUIET, Bad.LIN),
    Expectation(LOCAL_FIRST, Level.ERRORS, Bad.REG | Bad.LIN),
    Expectation(BUILT, None),
    Expectation(STRICT, None),
)
