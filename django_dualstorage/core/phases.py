"""The ladder of phases. The only module that compares phases: everybody else asks a :class:`Policy`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from django_dualstorage.exceptions import ConfigurationError


class Phase(str, Enum):
    """Where the migration stands, from the disk alone (first) to S3 alone (last)."""

    FILESYSTEM = "filesystem"
    MIRROR = "mirror"
    DUAL = "dual"
    DUAL_STRICT = "dual-strict"
    S3_PRIMARY = "s3-primary"
    S3 = "s3"

    def __str__(self) -> str:
        return self.value


class Truth(str, Enum):
    """The side whose answer counts."""

    LOCAL = "local"
    S3 = "s3"


class Reads(str, Enum):
    """Whom a read asks."""

    LOCAL = "local"  # the disk, nobody else
    CERTIFIED = "certified"  # S3 if its stamp equals the local version, else the disk; S3-only files too
    S3 = "s3"  # S3, nobody else


@dataclass(frozen=True)
class Policy:
    """What a process does in one phase."""

    phase: Phase
    #: Saves and deletes reach the disk.
    writes_local: bool
    #: Saves and deletes reach S3.
    writes_s3: bool
    #: An S3 failure on a write is left to repair; otherwise it is raised to the caller.
    queues_s3_errors: bool
    #: The side that decides what a file is.
    truth: Truth
    #: Whom open, size, exists, listdir ask.
    reads: Reads

    @property
    def writes_both(self) -> bool:
        """Whether an operation needs the whole protocol: hint, lock, both sides."""
        return self.writes_local and self.writes_s3

    @property
    def local_truth(self) -> bool:
        """Whether the disk decides what a file is."""
        return self.truth is Truth.LOCAL

    @property
    def sees_s3_only_files(self) -> bool:
        """Whether a file that only S3 has is readable."""
        return self.reads is not Reads.LOCAL


_POLICIES: Final = {
    policy.phase: policy
    for policy in (
        Policy(Phase.FILESYSTEM, True, False, True, Truth.LOCAL, Reads.LOCAL),
        Policy(Phase.MIRROR, True, True, True, Truth.LOCAL, Reads.LOCAL),
        Policy(Phase.DUAL, True, True, True, Truth.LOCAL, Reads.CERTIFIED),
        Policy(Phase.DUAL_STRICT, True, True, False, Truth.LOCAL, Reads.CERTIFIED),
        Policy(Phase.S3_PRIMARY, True, True, False, Truth.S3, Reads.S3),
        Policy(Phase.S3, False, True, False, Truth.S3, Reads.S3),
    )
}

LADDER: Final = tuple(Phase)
DEFAULT_PHASE: Final = Phase.DUAL

# Two processes in different phases at the same moment: which pairs keep the promise. Searched exhaustively by
# tests/model; neighbours on the ladder are always safe, which is why a flip goes one step at a time.
_SAFE_BESIDE_ANOTHER: Final = frozenset(
    {
        frozenset({Phase.FILESYSTEM, Phase.MIRROR}),
        frozenset({Phase.MIRROR, Phase.DUAL}),
        frozenset({Phase.MIRROR, Phase.DUAL_STRICT}),
        frozenset({Phase.DUAL, Phase.DUAL_STRICT}),
        frozenset({Phase.DUAL_STRICT, Phase.S3_PRIMARY}),
        frozenset({Phase.S3_PRIMARY, Phase.S3}),
    }
)


def policy_of(phase: Phase) -> Policy:
    """What a process does in ``phase``."""
    return _POLICIES[phase]


def parse_phase(text: str) -> Phase:
    """The phase of that name.

    Raises ConfigurationError, naming the phases there are, for any other text.
    """
    try:
        return Phase(text)
    except ValueError:
        known = ", ".join(phase.value for phase in LADDER)
        raise ConfigurationError(f"{text!r} is not a phase; the phases are {known}.") from None


def safe_together(one: Phase, other: Phase) -> bool:
    """Whether processes of these two phases may serve the same site at the same moment."""
    return one is other or frozenset({one, other}) in _SAFE_BESIDE_ANOTHER


def neighbours(phase: Phase) -> tuple[Phase, ...]:
    """The phases one step down and one step up."""
    at = LADDER.index(phase)
    return tuple(LADDER[i] for i in (at - 1, at + 1) if 0 <= i < len(LADDER))
