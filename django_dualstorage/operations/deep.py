"""Reading both copies of a file and comparing every byte."""

from __future__ import annotations

import time
from typing import BinaryIO, Final

from django_dualstorage.core.differences import Difference, Evidence, Found, Side, at_fault
from django_dualstorage.core.etags import EtagDigest
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.engine.boto import MIB, PART_SIZE
from django_dualstorage.engine.objectstore import Body
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.protocol.reconcile import same_bytes
from django_dualstorage.sides.filesystem import version_of

_TRIES: Final = 3
#: Somebody may still write to a file as young as this without giving it another version. Seconds.
_SETTLE: Final = 2.0


class ChangingError(Exception):
    """The file, or the object, was written to all the time."""


def read_both(pair: Pair, name: str) -> tuple[int, Found | None]:
    """Compare the bytes: how many were read of each side, and what is wrong, None if they are equal.

    Nothing is locked, for a large file takes minutes: what was read counts only if both copies say, before and after,
    that they are one version, and a difference only if a second reading shows it again. Memory is bounded. Raises
    ChangingError, UnmovableError, FileNotFoundError, S3Error.
    """
    for _ in range(_TRIES):
        file, local = pair.local.open_movable(name)
        with file:
            age = time.time() - local.mtime_ns / 1e9
            if 0 <= age < _SETTLE:
                time.sleep(_SETTLE - age)
            body = pair.s3.get(name, patient=True)
            try:
                if body.info.stamp is not None and body.info.stamp != local:
                    continue  # one of the two has been written since the names were compared
                equal = body.info.size == local.size and same_bytes(file, body)
            finally:
                body.close()
            if _changed(pair, name, file, local):
                continue
            if equal:
                return local.size, None
            found = _again(pair, name, file, local)
            if found is not None:
                return local.size, found
    raise ChangingError(name)


def _again(pair: Pair, name: str, file: BinaryIO, local: Stamp) -> Found | None:
    """The second reading, with checksums; None if it says something else than the first."""
    body = pair.s3.get(name, patient=True)
    try:
        info = body.info
        disk, s3 = (EtagDigest.like(info.etag, local.size, PART_SIZE) for _ in range(2))
        first = _first_difference(file, body, disk, s3)
    finally:
        body.close()
    if first is None or _changed(pair, name, file, local):
        return None
    if info.stamp is None:
        return Found(
            Difference.DIFFERS, name, Side.S3, f"has no stamp and other bytes than the disk, from byte {first}"
        )
    if info.stamp != local:
        return None
    side, why = at_fault(
        Evidence(
            etag=info.etag,
            of_disk=disk.etag() if disk else None,
            of_s3=s3.etag() if s3 else None,
        )
    )
    return Found(Difference.BYTES_DIFFER, name, side, f"from byte {first}; {why}")


def _first_difference(file: BinaryIO, body: Body, disk: EtagDigest | None, s3: EtagDigest | None) -> int | None:
    """Where the first byte differs, with both sides read to their ends for the checksums."""
    file.seek(0)
    first: int | None = None
    at = 0
    while True:
        theirs = body.read(MIB)
        ours = file.read(len(theirs) or MIB)
        if not theirs and not ours:
            return first
        if disk:
            disk.update(ours)
        if s3:
            s3.update(theirs)
        if first is None and ours != theirs:
            pairs = enumerate(zip(ours, theirs, strict=False))
            first = at + next((place for place, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
        at += max(len(ours), len(theirs))


def _changed(pair: Pair, name: str, file: BinaryIO, local: Stamp) -> bool:
    return version_of(file.fileno()) != local or pair.local.version(name) != local
