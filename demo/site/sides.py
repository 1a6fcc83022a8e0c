"""What only a demo asks of the storage: where the bytes of a file are."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from django.core.files.storage import storages

from django_dualstorage.core.stamp import Stamp
from django_dualstorage.exceptions import S3Error
from django_dualstorage.storage import DualWriteStorage


@dataclass(frozen=True)
class Side:
    """One of the two places."""

    name: str
    state: str
    good: bool


def _storage() -> DualWriteStorage:
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    return storage


def phase_now() -> str:
    """The phase that this process goes by."""
    return str(_storage().policy.phase)


def both_sides(name: str) -> list[Side]:
    """Which version of the file the disk has and which S3 has."""
    pair = _storage().pair
    local = pair.local.version(name)
    disk = Side("Disk", _described(local) if local else "not there", local is not None)
    try:
        found = pair.s3.head(name, patient=False)
    except S3Error:
        return [disk, Side("S3", "does not answer; the disk serves alone", False)]
    if found is None:
        return [disk, Side("S3", "not there yet", False)]
    if found.stamp is not None and found.stamp == local:
        return [disk, Side("S3", "the same version, certified", True)]
    return [disk, Side("S3", "another version; the disk's is served", False)]


def _described(version: Stamp) -> str:
    """What makes it a version of its own: its size, and when it was written, to the nanosecond."""
    seconds, nanoseconds = divmod(version.mtime_ns, 1_000_000_000)
    written = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"{version.size:,} bytes of {written:%d %b %Y %H:%M:%S}.{nanoseconds:09d}"


def process_status() -> dict[str, Any]:
    """For the page of numbers."""
    storage = _storage()
    known, pair = storage.known, storage.pair
    return {
        "phase": str(known.phase),
        "certified": known.certified,
        "counters": dict(pair.counters),
        "s3_left_alone": pair.s3.breaker.is_open,
        "hints": pair.journal.count(),
    }
