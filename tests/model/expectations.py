"""What the search must find, for each design; the table and the tests both hold it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from django_dualstorage.core.steps import Step
from tests.model import designs as known
from tests.model.designs import (
    BUILT,
    RECONCILE,
    STRICT,
    Design,
    Hides,
    Journal,
    Program,
    ReadRule,
    rebuilt,
    swapped,
    without,
)
from tests.model.explore import Result
from tests.model.monitors import Bad
from tests.model.scenarios import CORE, EVERYTHING, MORE, S3_ONLY, Level, Scenario, play_all

_LEVELS: Final = tuple(Level)


@dataclass(frozen=True)
class Expectation:
    """From which level on a design fails, and how; below that level it passes."""

    design: Design
    #: None: it passes everything.
    fails_from: Level | None = None
    kind: Bad = Bad.NOTHING

    def at(self, level: Level) -> Bad:
        """What the search must find at least; NOTHING says that it must find nothing."""
        if self.fails_from is None or _LEVELS.index(level) < _LEVELS.index(self.fails_from):
            return Bad.NOTHING
        return self.kind

    def check(self, level: Level, *, long: bool) -> Result:
        """Search until the expected failures are found; everything, where none is."""
        return play_all(self.design, self._scenarios(level, long), level, until=self.at(level) or EVERYTHING)

    def holds(self, level: Level, result: Result) -> bool:
        """Whether ``result`` is what was expected."""
        expected = self.at(level)
        return result.bad & expected == expected if expected else not result.bad

    def _scenarios(self, level: Level, long: bool) -> Iterator[Scenario]:
        # M4 has to fail for its own reason, the look that it lacks, not for what any hint hides.
        built = self.design.asks_s3 and self.design.journal is Journal.HINTS and self.design.hides is Hides.REMNANTS
        if built and self.at(level):
            yield from S3_ONLY  # where it is found soonest
        yield from CORE
        # Only what is built has to stand the rest; the short form leaves out the costly levels of it.
        if built and (long or level in (Level.QUIET, Level.KILLS)):
            yield from MORE
            yield from S3_ONLY


DESIGNS: Final = (
    Expectation(known.N1, Level.QUIET, Bad.REG),
    Expectation(known.N2, Level.QUIET, Bad.REG),
    Expectation(known.N3, Level.QUIET, Bad.REG),
    Expectation(known.N4, Level.QUIET, Bad.REG),
    Expectation(known.J1, Level.QUIET, EVERYTHING),
    Expectation(known.J2, Level.LATE, EVERYTHING),
    Expectation(known.J3, Level.LATE, EVERYTHING),
    Expectation(known.J4),
    Expectation(known.O1, Level.QUIET, EVERYTHING),
    Expectation(known.M1, Level.QUIET, Bad.CONV),
    Expectation(known.M1_VERIFIED),
    Expectation(known.M4, Level.QUIET, Bad.LIN),
    Expectation(known.LOCAL_FIRST, Level.ERRORS, Bad.REG | Bad.LIN),
    Expectation(BUILT),
    Expectation(STRICT),
    Expectation(known.PRIMARY, Level.LATE, Bad.REG),
)

#: Orders that the code may choose between: neither matters.
LIBERTIES: Final = (
    Expectation(replace(BUILT, name="built, unlocks before it clears", unlocks_first=True)),
    Expectation(replace(BUILT, name="built, second look at the hint first", hint_before_disk=True)),
    Expectation(replace(BUILT, name="built, the server ignores conditions", conditional=False)),
    Expectation(replace(STRICT, name="built, strict, the server ignores conditions", conditional=False)),
)

_BLIND_STRICT: Final = replace(STRICT, asks_s3=False, save_over_s3_only=(), delete_s3_only=())


def _without_lock(program: Program) -> Program:
    return without(program, Step.LOCK)


def _without_hint(program: Program) -> Program:
    return without(program, Step.HINT)


_NO_LOCK: Final = RECONCILE.without(Step.LOCK)
_NO_HINT: Final = RECONCILE.without(Step.HINT)

#: The built design with one mistake in it.
MUTANTS: Final = (
    Expectation(
        replace(_BLIND_STRICT, name="SAVE: COMMIT before PUT", save=swapped(STRICT.save, Step.PUT, Step.COMMIT)),
        Level.ERRORS,
        Bad.REG | Bad.LIN,
    ),
    Expectation(
        replace(
            _BLIND_STRICT,
            name="DELETE: UNLINK before DELETE",
            delete=swapped(STRICT.delete, Step.DELETE, Step.UNLINK),
        ),
        Level.ERRORS,
        Bad.REG | Bad.LIN,
    ),
    Expectation(rebuilt(BUILT, "SAVE without LOCK", _without_lock, Step.PUT), Level.QUIET, Bad.LIN | Bad.CONV),
    Expectation(rebuilt(BUILT, "DELETE without LOCK", _without_lock, Step.DELETE), Level.QUIET, Bad.REG),
    Expectation(rebuilt(BUILT, "SAVE without HINT", _without_hint, Step.PUT), Level.KILLS, Bad.CONV),
    Expectation(rebuilt(BUILT, "DELETE without HINT", _without_hint, Step.DELETE), Level.KILLS, Bad.CONV),
    Expectation(
        replace(BUILT, name="backfill and repair without LOCK", backfill=_NO_LOCK, repair=_NO_LOCK),
        Level.QUIET,
        EVERYTHING,
    ),
    Expectation(
        replace(BUILT, name="backfill and repair without HINT", backfill=_NO_HINT, repair=_NO_HINT),
        Level.LATE,
        EVERYTHING,
    ),
    Expectation(replace(BUILT, name="a read without its second look", reads=ReadRule.ONE_LOOK), Level.QUIET, Bad.LIN),
    Expectation(replace(BUILT, name="an SDK retry counts as clean", distrusts_retries=False), Level.LATE, EVERYTHING),
    Expectation(replace(BUILT, name="repair without grace", waits_grace=False), Level.LATE, EVERYTHING),
    Expectation(replace(BUILT, name="repair judges the grace at CLEAR", judges_late=True), Level.LATE, EVERYTHING),
    Expectation(
        replace(BUILT, name="repair drops hints after an unclean answer", trusts_itself=True), Level.ERRORS, Bad.CONV
    ),
    Expectation(
        replace(BUILT, name="repair removes files that only S3 has", spares_s3_only=False), Level.KILLS, Bad.REG
    ),
    Expectation(replace(BUILT, name="any hint hides a file that only S3 has", hides=Hides.ANY), Level.QUIET, Bad.REG),
    Expectation(replace(BUILT, name="no hint hides anything", hides=Hides.NONE), Level.KILLS, Bad.LIN),
    Expectation(
        replace(BUILT, name="the hint of a delete does not hide the file", hides=Hides.WRITERS), Level.QUIET, Bad.REG
    ),
    Expectation(
        replace(BUILT, name="a hint does not hide what its operation wrote", hides=Hides.DELETES), Level.KILLS, Bad.LIN
    ),
    Expectation(replace(BUILT, name="an overwrite brings nothing home", save_over_s3_only=()), Level.KILLS, Bad.REG),
    Expectation(replace(STRICT, name="a strict delete brings nothing home", delete_s3_only=()), Level.ERRORS, Bad.REG),
    Expectation(
        replace(BUILT, name="a read forgets the hints before its GET", remembers_hints=False), Level.KILLS, Bad.LIN
    ),
    Expectation(
        replace(BUILT, name="backfill forgets the hints of a vanished file", looks_before_it_forgets=False),
        Level.QUIET,
        EVERYTHING,
    ),
    Expectation(replace(BUILT, name="a save never asks S3", asks_s3=False), Level.QUIET, Bad.LIN),
    Expectation(
        replace(
            known.PRIMARY, name="S3 is the truth, but is made equal to the disk", backfill=RECONCILE, repair=RECONCILE
        ),
        Level.KILLS,
        Bad.LIN,
    ),
)


def check_mutant(mutant: Expectation) -> Result:
    """Search where the mistake must show, until it does."""
    level = mutant.fails_from
    assert level is not None
    return play_all(
        mutant.design,
        (*CORE, *S3_ONLY, *MORE) if level is Level.QUIET else (*CORE, *MORE, *S3_ONLY),
        level,
        until=mutant.kind,
    )
