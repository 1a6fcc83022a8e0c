"""The journal: one hint per operation that has begun and is not known to have reached both sides.

It lies in ``<MEDIA_ROOT>/.dualstorage`` because a container's volume is mounted exactly there, so all processes that
share the files share the journal. Hints drive repair and status; a read of a file that the disk has never depends on
them. If the folder is lost, repair is slower, never a read wrong.

=====================  ==================================================================================
``key``                keys the hash in the hints' file names, so that a web client cannot probe for names
``volume``             tells whether two processes share this folder
``hints/a/HASH-ID``    the hint of operation ID on the name with that keyed hash
``new/``               files of this folder that are being written
``locks/N``            see :mod:`django_dualstorage.locks`
``capabilities.json``  what a live probe found out about the server
=====================  ==================================================================================

A hint is ``flock``-ed as long as its operation lives, so liveness is exact even after ``kill -9``. Each S3 mutation
that is about to be sent adds a mark at its end, so that its modification time is when the last one was sent: a signed
request cannot land later than a grace period after that ("Authenticating Requests (AWS Signature Version 4)", Amazon
S3 API Reference: 15 minutes). A hint without its end of line is being written, or its writer died before it did
anything.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

from django_dualstorage.core.names import JOURNAL_DIR
from django_dualstorage.exceptions import JournalError

DIR_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_SENT: Final = b"!"
_ODD_NS: Final = 1_234_567_891_123_456_789


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


class Journal:
    """The journal of one MEDIA_ROOT. Building one touches nothing; the folder is made at the first use."""

    def __init__(self, media_root: str, *, fsync: bool = False) -> None:
        """``fsync``: a hint is on the disk itself before its operation goes on."""
        self._fsync = fsync
        self.root = os.path.join(media_root, JOURNAL_DIR)
        self._hints = os.path.join(self.root, "hints")
        self._new = os.path.join(self.root, "new")

    # -- the folder ------------------------------------------------------------------------------------------------

    @cached_property
    def key(self) -> bytes:
        """The key of the hash in the hints' names. Raises JournalError if the folder cannot be used."""
        return bytes.fromhex(self._created_once("key", 32))

    @cached_property
    def volume_id(self) -> str:
        """What processes compare to learn whether they share this MEDIA_ROOT. Raises JournalError."""
        return self._created_once("volume", 16)

    @cached_property
    def keeps_nanoseconds(self) -> bool:
        """Whether the filesystem keeps modification times to the nanosecond, as unique versions need."""
        self.key  # noqa: B018  the folder is there from here on
        path = os.path.join(self._new, f"probe-{secrets.token_hex(8)}")
        with self._explained("probe the clock of"):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            try:
                os.utime(fd, ns=(_ODD_NS, _ODD_NS))
                return os.fstat(fd).st_mtime_ns == _ODD_NS
            finally:
                os.close(fd)
                os.unlink(path)

    def _created_once(self, name: str, size: int) -> str:
        """The random hex text in ``name``; whoever comes first writes it, aside and linked in, never half."""
        path = Path(self.root, name)
        with self._explained("use"):
            if not path.exists():
                for folder in (self.root, self._hints, self._new, os.path.join(self.root, "locks")):
                    os.makedirs(folder, DIR_MODE, exist_ok=True)
                    os.chmod(folder, DIR_MODE)
                aside = Path(self._new, f"{name}-{secrets.token_hex(8)}")
                aside.touch(FILE_MODE)
                aside.write_text(secrets.token_hex(size))
                try:
                    os.link(aside, path)
                except FileExistsError:
                    pass  # another process was first: its text counts
                except OSError:
                    os.replace(aside, path)  # a filesystem without hard links
                aside.unlink(missing_ok=True)
            text = path.read_text().strip()
        if len(text) != size * 2 or not set(text) <= set("0123456789abcdef"):
            raise JournalError(
                f"{path} is damaged. If no dualstorage command is running, delete that file; it is made anew."
            )
        return text

    def _explained(self, doing: str) -> _Explained:
        return _Explained(f"Cannot {doing} the journal folder {self.root}")

    # -- hints of this process -------------------------------------------------------------------------------------

    def announce(self, kind: Kind, name: str, *, phase: str, content_type: str = "") -> Hint:
        """Begin an operation: its hint is on disk, locked, when this returns. Raises JournalError."""
        op_id = secrets.token_hex(16)
        record = HintRecord(op_id, kind, name, phase, time.time(), os.getpid(), content_type)
        path = self._hint_path(name, op_id)
        with self._explained("write a hint into"):
            fd = self._create_locked(path)
            try:
                content = record.encoded()
                if os.write(fd, content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._fsync:
                    _flush(fd, os.path.dirname(path))
            except BaseException:
                os.unlink(path)
                os.close(fd)
                raise
        return Hint(record, path, fd)

    @staticmethod
    def _create_locked(path: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        while True:
            try:
                fd = os.open(path, flags, FILE_MODE)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(path), DIR_MODE, exist_ok=True)
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)  # between open and lock it looked forgotten, and a repair removed it

    # -- hints of everybody ----------------------------------------------------------------------------------------

    def has_hint(self, name: str) -> bool:
        """Whether an operation on ``name`` has begun and is not known to have reached both sides."""
        return bool(self._paths_of(name))

    def hints_of(self, name: str) -> list[HintRecord]:
        """The hints of ``name``, of living and of ended operations. One that is being written counts as none yet:
        its operation has done nothing.
        """
        found = (_read(path) for path in self._paths_of(name))
        return [record for record in found if record is not None]

    def names_with_dead_hints(self) -> Iterator[str]:
        """Each name that repair has to look at, once."""
        seen: set[str] = set()
        for path in self._all_hint_paths():
            dead = _read_if_dead(path)
            if dead is not None and dead.record.name not in seen:
                seen.add(dead.record.name)
                yield dead.record.name

    def dead_hints_of(self, name: str) -> list[DeadHint]:
        """The hints of ``name`` whose operations have ended. Oldest first."""
        found = (_read_if_dead(path) for path in self._paths_of(name))
        return sorted((dead for dead in found if dead is not None), key=lambda dead: dead.record.began)

    def count(self) -> int:
        """How many hints there are, dead and live."""
        return sum(1 for _ in self._all_hint_paths())

    def forget(self, dead: DeadHint) -> None:
        """Remove a hint whose work was done."""
        Path(dead.path).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what killed processes left half written, and say how many. Live ones are locked and stay."""
        swept = 0
        for entry in self._entries(self._new):
            try:
                fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # finished meanwhile
            try:
                if time.time() - os.fstat(fd).st_ctime > 60 and _is_unlocked(fd):
                    Path(entry.path).unlink(missing_ok=True)
                    swept += 1
            finally:
                os.close(fd)
        return swept

    def _hint_path(self, name: str, op_id: str) -> str:
        digest = blake2b(os.fsencode(name), digest_size=16, key=self.key).hexdigest()
        # Sixteen folders: enough for listings to stay short, few enough that a filesystem which spreads folders over
        # the disk (ext4) does not pay for it at every hint.
        return f"{self._hints}/{digest[0]}/{digest[1:]}-{op_id}"

    def _paths_of(self, name: str) -> list[str]:
        if not self._exists:
            return []  # nobody has ever begun an operation here, and asking must not need permission to write
        folder, prefix = os.path.split(self._hint_path(name, ""))
        try:
            return [f"{folder}/{entry}" for entry in os.listdir(folder) if entry.startswith(prefix)]
        except FileNotFoundError:
            return []

    @property
    def _exists(self) -> bool:
        return "key" in self.__dict__ or os.path.exists(os.path.join(self.root, "key"))

    def _all_hint_paths(self) -> Iterator[str]:
        for shard in self._entries(self._hints):
            for entry in self._entries(shard.path):
                yield entry.path

    @staticmethod
    def _entries(folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []

    # -- what a probe found out ------------------------------------------------------------------------------------

    def read_capabilities(self) -> dict[str, Any]:
        """What live probes found out, by endpoint and bucket. An unreadable file counts as none: it is a cache."""
        try:
            found = json.loads(Path(self.root, "capabilities.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write_capabilities(self, capabilities: dict[str, Any]) -> None:
        """Keep what a live probe found out, for every process on this volume. Raises JournalError."""
        self.key  # noqa: B018  the folder is there from here on
        aside = Path(self._new, f"capabilities-{secrets.token_hex(8)}")
        with self._explained("write into"):
            aside.touch(FILE_MODE)
            aside.write_text(json.dumps(capabilities, indent=1, sort_keys=True))
            aside.replace(Path(self.root, "capabilities.json"))


class _Explained:
    """Turns an OSError into a JournalError that says what to do."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise JournalError(
                f"{self._what}: {error.strerror or error}. The user that runs Django must own this folder and the "
                "disk must have room. Do not delete the folder: it holds the hints of what S3 has still to be told."
            ) from error


def _flush(fd: int, folder: str) -> None:
    os.fsync(fd)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)


def _is_unlocked(fd: int) -> bool:
    try:
        # Shared: two that look at the same time must not take each other for the living owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_if_dead(path: str) -> DeadHint | None:
    """The hint at ``path`` if its operation has ended; None while it lives, or if it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        if not _is_unlocked(fd):
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


def _read(path: str) -> HintRecord | None:
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
