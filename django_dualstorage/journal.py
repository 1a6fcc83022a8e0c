"""The journal: one hint per operation that has begun and is not known to have reached both sides.

It lies in ``<MEDIA_ROOT>/.dualstorage`` because a container's volume is mounted exactly there, so all processes that
share the files share the journal. Hints drive repair and status; a read of a file that the disk has never depends on
them. If the folder is lost, repair has to compare everything, and what was deleted while S3 was down comes back.

=====================  ==================================================================================
``key``                keys the hash in the hints' file names, so that a web client cannot probe for names
``volume``             tells whether two processes share this folder
``hints/a/HASH-ID``    the hint of operation ID on the name with that keyed hash: see :mod:`.hints`
``new/``               files of this folder that are being written
``locks/N``            see :mod:`django_dualstorage.locks`
``capabilities.json``  what a live probe found out about the server
=====================  ==================================================================================
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from django_dualstorage.core.names import JOURNAL_DIR
from django_dualstorage.exceptions import JournalError
from django_dualstorage.hints import (
    DIR_MODE,
    FILE_MODE,
    DeadHint,
    Hint,
    HintRecord,
    Kind,
    create_locked,
    is_unlocked,
    read_hint,
    read_if_dead,
)
from django_dualstorage.ownership import chown_command, make_file, make_folder

_ODD_NS: Final = 1_234_567_891_123_456_789


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
            fd = make_file(path, os.O_WRONLY, FILE_MODE)
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
                os.makedirs(os.path.dirname(self.root), exist_ok=True)
                for folder in (self.root, self._hints, self._new, os.path.join(self.root, "locks")):
                    make_folder(folder, DIR_MODE)
                    os.chmod(folder, DIR_MODE)
                aside = self._written_aside(name, secrets.token_hex(size))
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

    def _written_aside(self, name: str, text: str) -> Path:
        path = os.path.join(self._new, f"{name}-{secrets.token_hex(8)}")
        with open(make_file(path, os.O_WRONLY, FILE_MODE), "w") as file:
            file.write(text)
        return Path(path)

    def demand_access(self) -> None:
        """Raises JournalError if this process may not even look into the folder, though there is one."""
        with self._explained("look into"), suppress(FileNotFoundError):
            os.stat(os.path.join(self.root, "key"))

    def _explained(self, doing: str) -> _Explained:
        return _Explained(doing, self.root)

    # -- hints of this process -------------------------------------------------------------------------------------

    def announce(self, kind: Kind, name: str, *, phase: str, content_type: str = "") -> Hint:
        """Begin an operation: its hint is on disk, locked, when this returns. Raises JournalError."""
        op_id = secrets.token_hex(16)
        record = HintRecord(op_id, kind, name, phase, time.time(), os.getpid(), content_type)
        path = self._hint_path(name, op_id)
        with self._explained("write a hint into"):
            fd = create_locked(path)
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

    # -- hints of everybody ----------------------------------------------------------------------------------------

    def has_hint(self, name: str) -> bool:
        """Whether an operation on ``name`` has begun and is not known to have reached both sides."""
        return bool(self._paths_of(name))

    def hints_of(self, name: str) -> list[HintRecord]:
        """The hints of ``name``, of living and of ended operations. One that is being written counts as none yet:
        its operation has done nothing.
        """
        found = (read_hint(path) for path in self._paths_of(name))
        return [record for record in found if record is not None]

    def names_with_dead_hints(self, on_damaged: Callable[[str, JournalError], None] | None = None) -> Iterator[str]:
        """Each name that repair has to look at, once.

        ``on_damaged`` hears of the path of a hint that says nothing; without it, raises JournalError.
        """
        seen: set[str] = set()
        for path in self._all_hint_paths():
            try:
                dead = read_if_dead(path)
            except JournalError as error:
                if on_damaged is None:
                    raise
                on_damaged(path, error)
                continue
            if dead is not None and dead.record.name not in seen:
                seen.add(dead.record.name)
                yield dead.record.name

    def dead_hints_of(self, name: str, *, but: str = "") -> list[DeadHint]:
        """The hints of ``name`` whose operations have ended, oldest first. Operation ``but`` is known to live."""
        found = (read_if_dead(path) for path in self._paths_of(name) if not (but and path.endswith(but)))
        return sorted((dead for dead in found if dead is not None), key=lambda dead: dead.record.began)

    def hinted_names(self) -> HintedNames:
        """The names that have a hint now: what :meth:`has_hint` says, of all names at once."""
        if not self.exists:
            return HintedNames(b"", frozenset())
        # A path ends with .../hints/a/REST-ID, and the digest is "a" and REST.
        found = (path.split("/")[-2:] for path in self._all_hint_paths())
        return HintedNames(self.key, frozenset(shard + rest.partition("-")[0] for shard, rest in found))

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
                if time.time() - os.fstat(fd).st_ctime > 60 and is_unlocked(fd):
                    Path(entry.path).unlink(missing_ok=True)
                    swept += 1
            finally:
                os.close(fd)
        return swept

    def _hint_path(self, name: str, op_id: str) -> str:
        digest = _digest(name, self.key)
        # Sixteen folders: enough for listings to stay short, few enough that a filesystem which spreads folders over
        # the disk (ext4) does not pay for it at every hint.
        return f"{self._hints}/{digest[0]}/{digest[1:]}-{op_id}"

    def _paths_of(self, name: str) -> list[str]:
        if not self.exists:
            return []  # nobody has ever begun an operation here, and asking must not need permission to write
        folder, prefix = os.path.split(self._hint_path(name, ""))
        try:
            return [f"{folder}/{entry}" for entry in os.listdir(folder) if entry.startswith(prefix)]
        except FileNotFoundError:
            return []

    @property
    def exists(self) -> bool:
        """Whether anybody has ever begun an operation here; asking makes nothing."""
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
        with self._explained("write into"):
            aside = self._written_aside("capabilities", json.dumps(capabilities, indent=1, sort_keys=True))
            aside.replace(Path(self.root, "capabilities.json"))


class HintedNames:
    """The names that had a hint at one moment, for whoever has to ask about very many names."""

    def __init__(self, key: bytes, digests: frozenset[str]) -> None:
        self._key = key
        self._digests = digests

    def __bool__(self) -> bool:
        return bool(self._digests)

    def __contains__(self, name: object) -> bool:
        return bool(self._digests) and isinstance(name, str) and _digest(name, self._key) in self._digests


class _Explained:
    """Turns an OSError into a JournalError that says what to do."""

    def __init__(self, doing: str, folder: str) -> None:
        self._doing = doing
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            mend = "The user that runs Django must own this folder and the disk must have room."
            if isinstance(error, PermissionError):
                mend = f"The user that runs Django must own this folder: {chown_command(self._folder)}, as root."
            raise JournalError(
                f"Cannot {self._doing} the journal folder {self._folder}: {error.strerror or error}. {mend} Do not "
                "delete the folder: it holds the hints of what S3 has still to be told."
            ) from error


def _digest(name: str, key: bytes) -> str:
    return blake2b(os.fsencode(name), digest_size=16, key=key).hexdigest()


def _flush(fd: int, folder: str) -> None:
    os.fsync(fd)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
