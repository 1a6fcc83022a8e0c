"""What the built design does not promise, each with the run that shows it.

A test holds that these runs do fail: when the design learns better, it says so here too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from django_dualstorage.core.phases import Phase
from tests.model.designs import BUILT, STRICT, Design, design_of
from tests.model.explore import Case, Result, search
from tests.model.monitors import Bad
from tests.model.scenarios import Level, Role, build, kinds_of
from tests.model.state import ABSENT


@dataclass(frozen=True)
class Limit:
    """One thing that is not promised."""

    name: str
    #: What keeps a site out of it.
    instead: str
    cast: tuple[tuple[Design, Role], ...]
    level: Level
    kind: Bad
    local: int = ABSENT
    s3: int = 0

    def show(self) -> Result:
        """The search that finds it."""
        faults = self.level.faults
        case = Case(self.cast[0][0], build(self.cast, faults), kinds_of(self.cast), self.local, self.s3, faults, converges=self.repaired)
        return search(case, until=self.kind)

    @property
    def repaired(self) -> bool:
        """Whether the run ends with a repair."""
        return any(role is Role.REPAIR for _, role in self.cast)


_PRIMARY: Final = replace(design_of(Phase.S3_PRIMARY), name="s3-primary")
_S3: Final = design_of(Phase.S3)

LIMITS: Final = (
    Limit(
        "a hint hides a file that only S3 has, though nothing is wrong with it",
        "Only a delete may announce itself on such a name; bring the file home before anything else.",
        ((BUILT, Role.BACKFILL), (BUILT, Role.READ)),
        Level.QUIET,
        Bad.REG,
    ),
    Limit(
        "a save over a file that only S3 has loses it, if it is killed between PUT and COMMIT",
        "Bring the file home first, under the lock, or refuse to overwrite it.",
        ((BUILT, Role.SAVE), (BUILT, Role.REPAIR)),
        Level.KILLS,
        Bad.REG,
    ),
    Limit(
        "a delete of a file that only S3 has takes effect though it raised",
        "Try the delete again: readers count the file as gone at once, and repair removes it.",
        ((STRICT, Role.DELETE), (STRICT, Role.READ)),
        Level.ERRORS,
        Bad.REG,
    ),
    Limit(
        "a file written behind the storage's back while the S3-only file of that name is deleted comes and goes",
        "Write through the storage.",
        ((BUILT, Role.OUTSIDER), (BUILT, Role.DELETE), (BUILT, Role.READ_TWICE)),
        Level.QUIET,
        Bad.LIN,
    ),
    Limit(
        "prune where the disk is the truth: the hint of the next save hides the file, which only S3 has now",
        "Prune only where S3 is the truth.",
        ((BUILT, Role.PRUNE), (BUILT, Role.SAVE), (BUILT, Role.READ)),
        Level.QUIET,
        Bad.REG,
        local=0,
    ),
    Limit(
        "a read that takes longer than a grace period between its two looks returns a save that failed",
        "Start over when the second look comes too late.",
        (
            (replace(BUILT, bounds_reads=False), Role.SAVE),
            (BUILT, Role.REPAIR),
            (replace(BUILT, bounds_reads=False), Role.READ_TWICE),
        ),
        Level.KILLS,
        Bad.LIN,
        s3=ABSENT,
    ),
    Limit(
        "where S3 is the truth, a late request undoes an acknowledged save",
        "Conditional requests, where the server honours them; plain S3 storage does no better.",
        ((_S3, Role.SAVE), (_S3, Role.SAVE), (_S3, Role.READ)),
        Level.LATE,
        Bad.REG,
        local=0,
    ),
    Limit(
        "were S3 made equal to the disk where others write S3 alone, it would lose their saves",
        "Where S3 is the truth, reconcile makes the disk equal to S3.",
        ((_PRIMARY, Role.BACKFILL), (_S3, Role.SAVE), (_S3, Role.READ)),
        Level.QUIET,
        Bad.REG,
        local=0,
    ),
    Limit(
        "were S3 made equal to the disk where S3 is the truth, readers would see a save come and go",
        "Where S3 is the truth, reconcile makes the disk equal to S3.",
        ((_PRIMARY, Role.SAVE), (_PRIMARY, Role.REPAIR), (_PRIMARY, Role.READ_TWICE)),
        Level.KILLS,
        Bad.LIN,
        local=0,
    ),
)
