"""What a long command did, in one object that prints as text and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from django_dualstorage.core.stamp import Stamp


class Outcome(str, Enum):
    """What happened to one file. The value is the word in reports and in ``--json``; never renamed."""

    CERTIFIED = "certified"  # S3 had this very version already
    UPLOADED = "uploaded"
    REPLACED = "replaced"
    ADOPTED = "adopted"  # equal bytes were there without a stamp; stamped now
    DELETED = "deleted"  # from S3: a remainder of an operation on a file that is gone
    BROUGHT_HOME = "brought-home"  # from S3 to the disk
    QUARANTINED = "quarantined"  # a local file that S3, the truth, no longer has: moved aside
    NOTHING = "nothing"  # both sides lack it
    SAME_SIZE = "same-size"  # both sides have it in one size, and nobody was to look further
    # What a person has to look at.
    BAD_NAME = "bad-name"
    SYMLINK = "symlink"
    SPECIAL = "special"
    UNREADABLE = "unreadable"
    VANISHED = "vanished"
    CHANGED = "changed"
    KEPT = "kept"  # the disk has another version than S3, which must not be replaced
    FAILED = "failed"

    def __str__(self) -> str:
        return self.value

    @property
    def is_problem(self) -> bool:
        """Whether it leaves the two sides unequal, so that the command exits with 1."""
        return self in _PROBLEMS

    @property
    def moves_bytes(self) -> bool:
        """Whether the file's bytes crossed the network."""
        return self in {Outcome.UPLOADED, Outcome.REPLACED, Outcome.BROUGHT_HOME}

    @property
    def changes_s3(self) -> bool:
        """Whether S3 took a change of the object."""
        return self in {Outcome.UPLOADED, Outcome.REPLACED, Outcome.ADOPTED, Outcome.DELETED}


_PROBLEMS = frozenset(
    {
        Outcome.BAD_NAME,
        Outcome.SYMLINK,
        Outcome.SPECIAL,
        Outcome.UNREADABLE,
        Outcome.VANISHED,
        Outcome.CHANGED,
        Outcome.KEPT,
        Outcome.FAILED,
    }
)


@dataclass(frozen=True)
class FileResult:
    """One file's outcome."""

    name: str
    outcome: Outcome
    #: Bytes of the file.
    size: int = 0
    #: For a problem: what happened and what to do.
    detail: str = ""
    #: S3 answered only after a retry, or not at all: the hint stays until repair has looked.
    clean: bool = True
    #: The local version that the object with ``etag`` was seen, or written, to be the copy of; None if unknown.
    version: Stamp | None = None
    etag: str = ""
    #: S3 refused to be written to for a reason that other files have, too: keys, permissions, the bucket.
    refused: bool = False


@dataclass
class Report:
    """The sum of many outcomes. Memory is bounded: every problem is counted, but only the first ones are kept."""

    #: How many problems are kept with their names; the rest were logged as they happened.
    KEPT = 10_000

    dry_run: bool = False
    counts: Counter[Outcome] = field(default_factory=Counter)
    bytes_moved: int = 0
    problems: list[FileResult] = field(default_factory=list)
    #: Objects that no local file belongs to, where the command looked, and the first of their names.
    s3_only: int = 0
    s3_only_names: list[str] = field(default_factory=list)
    #: Local files that no object belongs to, where the command brings objects to the disk.
    local_only: int = 0
    #: Hints that must wait out their grace period.
    pending: int = 0
    seconds: float = 0.0
    #: Which engine carried the bytes, and why if it was not the fastest.
    engine: str = ""
    #: Of a dry run: how many files there are of each kind that cannot, or perhaps should not, be moved.
    preflight: dict[str, int] = field(default_factory=dict)
    interrupted: bool = False
    #: The time that the run was given was over before everything was looked at.
    out_of_time: bool = False
    #: Of a run that has ended early: how many files it has not reached; None if unknown.
    left: int | None = None
    #: What is wrong with the run as a whole, such as the error that ended it.
    error: str = ""
    #: Of a dry run: what a real run would take, from the throughput of the last one. Seconds; None if unknown.
    estimate: float | None = None

    def add(self, result: FileResult) -> None:
        """Count one file."""
        self.counts[result.outcome] += 1
        if result.outcome.moves_bytes:
            self.bytes_moved += result.size
        if not result.clean:
            self.pending += 1
        if result.outcome.is_problem and len(self.problems) < self.KEPT:
            self.problems.append(result)

    def add_many(self, outcome: Outcome, files: int) -> None:
        """Count files that nothing more is to be said about."""
        if files:
            self.counts[outcome] += files

    def add_s3_only(self, names: Iterable[str]) -> None:
        """Count objects that no local file belongs to."""
        for name in names:
            self.s3_only += 1
            if len(self.s3_only_names) < self.KEPT:
                self.s3_only_names.append(name)

    @property
    def files(self) -> int:
        """Files looked at."""
        return sum(self.counts.values())

    @property
    def problem_count(self) -> int:
        """Files that a person has to look at."""
        return sum(count for outcome, count in self.counts.items() if outcome.is_problem)

    @property
    def complete(self) -> bool:
        """Whether nothing was left undone."""
        return not (self.problem_count or self.interrupted or self.out_of_time)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data, for ``--json``."""
        return {
            "dry_run": self.dry_run,
            "files": self.files,
            "counts": {outcome.value: self.counts[outcome] for outcome in Outcome if self.counts[outcome]},
            "bytes_moved": self.bytes_moved,
            "s3_only": self.s3_only,
            "s3_only_names": self.s3_only_names,
            "local_only": self.local_only,
            "pending_hints": self.pending,
            "engine": self.engine,
            "preflight": self.preflight,
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "out_of_time": self.out_of_time,
            "left": self.left,
            "error": self.error,
            "estimated_seconds": None if self.estimate is None else round(self.estimate, 1),
            "problems": [
                {"name": problem.name, "reason": problem.outcome.value, "detail": problem.detail}
                for problem in self.problems
            ],
        }
