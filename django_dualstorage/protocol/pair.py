"""Everything an operation needs: the two sides and what keeps them equal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from django_dualstorage.core.steps import Observer, unobserved
from django_dualstorage.journal import Journal
from django_dualstorage.locks import NameLocks
from django_dualstorage.sides.filesystem import FilesystemSide
from django_dualstorage.sides.s3 import S3Side


@dataclass
class Pair:
    """One MEDIA_ROOT and one bucket prefix."""

    local: FilesystemSide
    s3: S3Side
    journal: Journal
    locks: NameLocks
    #: Told each step before it is taken; tests listen here.
    observe: Observer = unobserved
    #: What happened in this process, by stable words (``read.s3``, ``read.local``, ``read.fallback.stale``, ...).
    counters: Counter[str] = field(default_factory=Counter)
    #: Leave a hint where a read found S3 behind, so that repair copies the file.
    read_repair: bool = False
    #: Seconds after which a signed request can no longer land.
    grace: float = 900.0

    @property
    def patience_of_a_look(self) -> float:
        """Seconds for which two looks at the hints, one before S3's answer and one after, see all that came between:
        a hint is not cleared before its grace period is over. At least half a minute, for a grace period of 0 says
        that nothing can land late.
        """
        return max(self.grace / 2, 30.0)
