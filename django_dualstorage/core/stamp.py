"""Stamps: which version of the local file an S3 object was made from."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: User metadata of every object that this package writes. S3 hands the names back in lower case.
STAMP_KEY: Final = "ds-stamp"
OP_KEY: Final = "ds-op"

_STAMP = re.compile(r"(\d{1,19}):(-?\d{1,20})", re.ASCII)
_RANDOM_SPAN_NS: Final = 1_000_000


@dataclass(frozen=True)
class Stamp:
    """One version of a local file."""

    #: Bytes.
    size: int
    #: Modification time, nanoseconds since the epoch.
    mtime_ns: int

    def __str__(self) -> str:
        return f"{self.size}:{self.mtime_ns}"

    @property
    def seconds(self) -> float:
        """The modification time as ``os.path.getmtime`` gives it, rounded in the very same way."""
        seconds, nanoseconds = divmod(self.mtime_ns, 1_000_000_000)
        return seconds + 1e-9 * nanoseconds


def parse_stamp(text: str | None) -> Stamp | None:
    """The stamp written in an object's metadata; None for an absent or foreign value (such an object is unstamped)."""
    found = _STAMP.fullmatch(text) if text else None
    return Stamp(int(found[1]), int(found[2])) if found else None


def stamp_metadata(stamp: Stamp, op_id: str) -> dict[str, str]:
    """The user metadata that certifies an object as the copy of ``stamp``, written by the operation ``op_id``."""
    return {STAMP_KEY: str(stamp), OP_KEY: op_id}


def stamp_of(metadata: Mapping[str, str]) -> Stamp | None:
    """The stamp in an object's user metadata."""
    return parse_stamp(metadata.get(STAMP_KEY))


def next_mtime_ns(replaced_ns: int | None, now_ns: int | None = None) -> int:
    """A modification time that no other version of the file has or will have.

    Later than the version it replaces, so that tools that compare times see the change; random in its low digits, so
    that two writers in one clock tick, or a version restored to an old time, do not collide. Colliding stamps would
    break the proof at once. ``now_ns`` is the clock, for tests. Nanoseconds since the epoch.
    """
    now = time.time_ns() if now_ns is None else now_ns
    fresh = now - now % _RANDOM_SPAN_NS + secrets.randbelow(_RANDOM_SPAN_NS)
    if replaced_ns is not None and fresh <= replaced_ns:
        return replaced_ns + 1 + secrets.randbelow(_RANDOM_SPAN_NS)
    return fresh
