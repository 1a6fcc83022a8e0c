"""A hint: the small file that says that an operation on a name has begun and has not been seen to end well.

A hint is ``flock``-ed as long as its operation lives, so liveness is exact even after ``kill -9``. Each S3 mutation
that is about to be sent adds a mark at its end, so that its modification time is when the last one was sent: a signed
request cannot land later than a grace period after that ("Authenticating Requests (AWS Signature Version 4)", Amazon
S3 API Reference: 15 minutes). A hint without its end of line is being written, or its writer died before it did
anything.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from django_dualstorage.core.compare import is_remnant
from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.exceptions import JournalError
from django_dualstorage.ownership import make_file, make_folder

DIR_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_SENT: Final = b"!"


class Kind(str, Enum):
    """What kind of operation left a hint."""

    SAVE = "save"
    DELETE = "delete"
    RECONCILE = "reconcile"
    #: A read found the disk ahead of S3 and asks repair to look (option ``read_repair``).
    READ = "read"


class HintRecord(NamedTuple):
    """What a hint says. Small on purpose: no credentials, no content."""

    op_id: str
    kind: Kind
    #: Relative to MEDIA_ROOT.
    name: str
    #: The phase in which the operation began.
    phase: str
    #: Seconds since the epoch.
    began: float
    pid: int
    #: The upload's own content type, where it brought one: repair must write the same.
    content_type: str = ""

    def encoded(self) -> bytes:
        """As it stands in the file: one line of JSON."""
        return json.dumps(self).encode("ascii") + b"\n"

    @classmethod
    def decoded(cls, content: bytes) -> HintRecord:
        """Raises ValueError or TypeError for anything that :meth:`encoded` has not written."""
        op_id, kind, *rest = json.loads(content.partition(b"\n")[0])
        return cls(op_id, Kind(kind), *rest)


def is_remnant_by(hints: Iterable[HintRecord], remote: ObjectInfo) -> bool:
    """Whether the hints of a name say that its object, where the disk has no file, is what operations have left."""
    hints = tuple(hints)
    return is_remnant(
        remote, deleted=any(hint.kind is Kind.DELETE for hint in hints), own_ops={hint.op_id for hint in hints}
    )


class Hint:
    """The hint of an operation of this process. Locked until :meth:`clear` or :meth:`leave`."""

    def __init__(self, record: HintRecord, path: str, fd: int) -> None:
        self.record = record
        self.sent = False
        self._path = path
        self._fd = fd

    def sending(self) -> None:
        """Note that an S3 mutation is about to be sent: from now on it may land late."""
        self.sent = True
        os.write(self._fd, _SENT)

    def clear(self) -> None:
        """Both sides answered cleanly, or nothing was changed: forget the operation."""
        with suppress(FileNotFoundError):  # somebody emptied the journal
            os.unlink(self._path)
        os.close(self._fd)

    def leave(self) -> None:
        """The operation ended and repair has to look."""
        # Closing would not do if a forked child had inherited the descriptor: the hint would look alive.
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)


@dataclass(frozen=True)
class DeadHint:
    """A hint whose operation has ended without clearing it."""

    record: HintRecord
    path: str
    #: Seconds since the epoch when its last S3 mutation was sent; 0 if none was.
    last_sent: float

    def may_still_land(self, grace: float, now: float) -> bool:
        """Whether a request of that operation could still reach S3."""
        return bool(self.last_sent) and now - self.last_sent < grace


def create_locked(path: str) -> int:
    """A new file for a hint, locked by whoever holds the descriptor that is returned."""
    while True:
        try:
            fd = make_file(path, os.O_RDWR | os.O_APPEND, FILE_MODE)
        except FileNotFoundError:
            folder = os.path.dirname(path)
            os.makedirs(os.path.dirname(folder), exist_ok=True)
            make_folder(folder, DIR_MODE)
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)  # between open and lock it looked forgotten, and a repair removed it


def is_unlocked(fd: int) -> bool:
    """Whether the operation whose hint this is has ended."""
    try:
        # Shared: two that look at the same time must not take each other for the living owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_if_dead(path: str) -> DeadHint | None:
    """The hint at ``path`` if its operation has ended; None while it lives, or if it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not is_unlocked(fd):
            return None
        status = os.fstat(fd)
        if not status.st_nlink:
            return None
        content = os.read(fd, status.st_size)
        if not _is_written(content):
            # Under its lock, which its writer, if there still is one, has to take first.
            Path(path).unlink(missing_ok=True)
            return None
    finally:
        os.close(fd)
    return DeadHint(_decoded(content, path), path, status.st_mtime if content.endswith(_SENT) else 0)


def read_hint(path: str) -> HintRecord | None:
    """What the hint at ``path`` says; None if it is gone or not written yet."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        return None
    return _decoded(content, path) if _is_written(content) else None


def _is_written(content: bytes) -> bool:
    return b"\n" in content


def _decoded(content: bytes, path: str) -> HintRecord:
    try:
        return HintRecord.decoded(content)
    except (ValueError, TypeError) as error:
        raise JournalError(
            f"The hint {path} is damaged ({error}). Move it out of the journal, then run "
            "manage.py dualstorage_backfill, which compares every file."
        ) from error
