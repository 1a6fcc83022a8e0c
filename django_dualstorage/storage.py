"""The storage backend: FileSystemStorage's interface over the dual-write protocol."""

from __future__ import annotations

import errno
import functools
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import IO, Any

from django.conf import settings
from django.core.files import File
from django.core.files.utils import validate_file_name

from django_dualstorage.core.names import is_reserved, staged_name
from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.phases import Policy, Reads
from django_dualstorage.engine.objectstore import Source
from django_dualstorage.exceptions import NotOnDiskError, S3Error, UnmovableError
from django_dualstorage.files import Opened, StoredFile, for_reading, for_writing, scratch_file
from django_dualstorage.protocol.delete import delete
from django_dualstorage.protocol.read import open_raw, stat_s3_only
from django_dualstorage.protocol.save import save, save_to_s3
from django_dualstorage.sides.filesystem import Content, write_all
from django_dualstorage.wiring import WiredStorage

_HEADER_SAFE = re.compile(r"[\x20-\x7e]{1,255}")
_WRITING = frozenset("wax+")


_WAYS_OF_NAMING = ("get_available_name", "is_name_available", "exists")


@dataclass
class _Naming:
    """A name is being chosen for a save, which finds out by itself, atomically, whether it is taken on either side."""

    max_length: int | None = None
    taken: set[str] = field(default_factory=set)
    #: Every name is free, because a file that has it is overwritten.
    overwriting: bool = False


_naming: ContextVar[_Naming | None] = ContextVar("dualstorage_naming", default=None)


class _choosing_names:  # noqa: N801  reads as a verb
    """Within this block, names are chosen for a save (or not, with None). A class: a generator would cost more."""

    def __init__(self, naming: _Naming | None) -> None:
        self._chosen = naming

    def __enter__(self) -> None:
        self._token = _naming.set(self._chosen)

    def __exit__(self, *error: object) -> None:
        _naming.reset(self._token)


class DualWriteStorage(WiredStorage):
    """Writes to the disk and to S3, reads S3 with the disk behind it; see the phases for who does what when.

    Takes the keywords of FileSystemStorage and the options of :data:`django_dualstorage.conf.OPTION_TYPES`, each with
    a default; works when constructed without any. Building one touches neither the disk, nor S3, nor the database.
    Methods raise what FileSystemStorage's raise and, where the phase says so, S3Error, which is an OSError too.
    """

    # -- open ------------------------------------------------------------------------------------------------------

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        return StoredFile(mode, functools.partial(self._opened, self.relative_name(name)))

    def _opened(self, name: str, mode: str) -> Opened:
        policy = self.policy
        if _WRITING & set(mode):
            return self._opened_for_writing(name, mode, policy)
        return for_reading(open_raw(self.pair, policy, name), self.pair.local.path(name), name, mode)

    def _opened_for_writing(self, name: str, mode: str, policy: Policy) -> Opened:
        path = self.pair.local.path(name)
        create = "x" in mode
        if create and self._has(name, policy):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        with self._beginning(name, mode) as beginning:
            if policy.writes_local:
                folder = os.path.dirname(path)
                self.pair.local.make_folder(folder)
                scratch, scratch_path = scratch_file(folder, staged_name(secrets.token_hex(16)), mode, beginning)
            else:
                scratch, scratch_path = scratch_file(settings.FILE_UPLOAD_TEMP_DIR, None, mode, beginning)

        def save_written(written: str) -> None:
            content = Content((), path=written)
            self._store(self.policy, name, content, overwrite=not create, max_length=None, exactly=True)

        return for_writing(scratch, scratch_path, path if policy.local_truth else name, save_written)

    @contextmanager
    def _beginning(self, name: str, mode: str) -> Iterator[IO[bytes] | None]:
        """What a file that is opened for writing begins with: the present version, where the mode keeps it."""
        if {"w", "x"} & set(mode):
            yield None
            return
        try:
            present = self._open(name)
        except NotOnDiskError:
            raise  # S3 may have it, and what is appended to nothing would replace it
        except FileNotFoundError:
            if "r" in mode:
                raise
            yield None
            return
        with present:
            yield present

    # -- save ------------------------------------------------------------------------------------------------------

    def save(self, name: str | None, content: IO[Any], max_length: int | None = None) -> str:
        """Save new content under ``name`` or, if that is taken, under a name like it; returns the name."""
        if name is None:
            name = content.name
        file: Any = content if hasattr(content, "chunks") else File(content, name)
        # As Storage.save() does, but each name is checked once: half of what a save on the disk costs is these checks.
        validate_file_name(name, allow_relative_path=True)
        with _choosing_names(_Naming(max_length)):
            chosen = self._first_name(name, max_length)
            saved = self._save(chosen, file)
        if saved != chosen:
            validate_file_name(saved, allow_relative_path=True)
        return saved

    def _first_name(self, name: str, max_length: int | None) -> str:
        """The name to try first. Whether it is taken is found out by saving, where the site leaves that to us."""
        plain = str(name).replace("\\", "/")
        if self._names_are_ours and plain == name and (max_length is None or len(name) <= max_length):
            return name
        chosen = self.get_available_name(name, max_length=max_length)
        return str(validate_file_name(chosen, allow_relative_path=True))

    @property
    def _names_are_ours(self) -> bool:
        """Whether names are chosen as this class does; a site's own way may ask and even delete."""
        ours, mine = DualWriteStorage, type(self)
        return mine is ours or all(getattr(mine, way, None) is getattr(ours, way, None) for way in _WAYS_OF_NAMING)

    def _save(self, name: str, content: File[Any]) -> str:
        naming = _naming.get() or _Naming()
        path = content.temporary_file_path() if hasattr(content, "temporary_file_path") else None
        given = getattr(content, "content_type", None) or ""
        content_type = given if isinstance(given, str) and _HEADER_SAFE.fullmatch(given) else ""
        # Content may be read through this very storage: its questions must get whole answers.
        with _choosing_names(None):
            return self._store(
                self.policy,
                self.relative_name(name),
                Content(content.chunks() if path is None else (), path, content_type),
                overwrite=self._allow_overwrite,
                max_length=naming.max_length,
            )

    def _store(
        self,
        policy: Policy,
        name: str,
        content: Content,
        *,
        overwrite: bool,
        max_length: int | None,
        exactly: bool = False,
    ) -> str:
        taken: set[str] = set()

        def next_name(name: str) -> str:
            if exactly:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
            taken.add(name)
            with _choosing_names(_Naming(max_length, taken)):
                return self.relative_name(self.get_available_name(name, max_length=max_length))

        if policy.writes_local:
            return save(
                self.pair,
                policy,
                name,
                content,
                overwrite=overwrite,
                next_name=next_name,
                deferred=self.options.deferred,
            )
        with _as_file(content) as file:
            source = Source(file.fileno(), os.fstat(file.fileno()).st_size)
            return save_to_s3(
                self.pair, name, source, content_type=content.content_type, overwrite=overwrite, next_name=next_name
            )

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """A name that is free for a new file; any name where overwriting is allowed."""
        if not self._allow_overwrite:
            return super().get_available_name(name, max_length=max_length)
        # Django before 5.1 would look for ever for another name than the one it has.
        with _choosing_names(_Naming(max_length, overwriting=True)):
            return super().get_available_name(name, max_length=max_length)

    def get_alternative_name(self, file_root: str, file_ext: str) -> str:
        """Another name for a file whose name is taken; the same where overwriting is allowed."""
        if self._allow_overwrite:
            return f"{file_root}{file_ext}"
        return super().get_alternative_name(file_root, file_ext)

    # -- delete ----------------------------------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Delete the file from every side that the phase writes, or the empty folder; nothing there is fine."""
        if not name:
            raise ValueError("The name must be given to delete().")
        relative = self.relative_name(name)
        policy = self.policy
        path = self.pair.local.path(relative)
        if policy.writes_local and os.path.isdir(path) and not os.path.islink(path):
            self.pair.local.unlink(relative)
            return
        delete(self.pair, policy, relative, deferred=self.options.deferred)

    # -- questions -------------------------------------------------------------------------------------------------

    def exists(self, name: str) -> bool:
        """Whether a file of that name can be read, as far as can be known; a silent S3 counts as no."""
        relative = self.relative_name(name)
        naming = _naming.get()
        if naming is not None and (naming.overwriting or self._names_are_ours):
            return relative in naming.taken
        return self._has(relative, self.policy)

    def _has(self, name: str, policy: Policy) -> bool:
        if not name:
            return True
        try:
            if policy.reads is Reads.S3:
                return self.pair.s3.head(name, patient=True) is not None
            if self.pair.local.exists(name) or policy.reads is Reads.LOCAL:
                return self.pair.local.exists(name)
            return stat_s3_only(self.pair, name) is not None or self.pair.local.exists(name)
        except UnmovableError:
            return False
        except S3Error:
            if policy.reads is Reads.S3:
                raise
            return False  # counted where it was raised

    def size(self, name: str) -> int:
        """Bytes. A certified object has the size of the local file, so S3 is asked only where the disk has none."""
        relative = self.relative_name(name)
        size: int = self._ask(relative, os.path.getsize, lambda info: info.size, of_root=0)
        return size

    def get_accessed_time(self, name: str) -> datetime:
        """When the local file was last read; S3 keeps no such time, so there it is when the file was written."""
        return self._time(name, os.path.getatime)

    def get_created_time(self, name: str) -> datetime:
        """When the local file was last changed; on S3, where a version never changes, when it was written."""
        return self._time(name, os.path.getctime)

    def get_modified_time(self, name: str) -> datetime:
        """When the file was written. Both sides give the same: the object's stamp has the local file's time."""
        return self._time(name, os.path.getmtime)

    def _time(self, name: str, of_path: Callable[[str], float]) -> datetime:
        def of_object(info: ObjectInfo) -> float:
            return info.stamp.seconds if info.stamp else info.last_modified.timestamp()

        seconds = self._ask(self.relative_name(name), of_path, of_object)
        return datetime.fromtimestamp(seconds, tz=timezone.utc if settings.USE_TZ else None)

    def _ask(
        self,
        name: str,
        of_path: Callable[[str], Any],
        of_object: Callable[[ObjectInfo], Any],
        *,
        of_root: Any = None,
    ) -> Any:
        """Ask the disk where it is the truth and has the file, else the object. Raises FileNotFoundError."""
        policy = self.policy
        path = self.pair.local.path(name) if name else self.root
        if policy.reads is not Reads.S3:
            try:
                return of_path(path)
            except FileNotFoundError:
                info = None if policy.reads is Reads.LOCAL else stat_s3_only(self.pair, name)
            # Not on S3 either, or come to the disk meanwhile.
            return of_path(path) if info is None else of_object(info)
        if not name and of_root is not None:
            return of_root
        try:
            found = self.pair.s3.head(name, patient=True)
        except UnmovableError:
            found = None  # a name that S3 cannot have
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return of_object(found)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the files directly in ``path``, those that only S3 has included."""
        relative = self.relative_name(path)
        below = f"{relative}/" if relative else ""
        reads = self.policy.reads
        if reads is Reads.S3:
            folders, files = self.pair.s3.list_folder(relative, patient=True)
            return _not_ours(below, folders), _not_ours(below, files)
        missing: FileNotFoundError | None = None
        folders, files = [], []
        try:
            folders, files = super().listdir(path)
        except FileNotFoundError as error:
            missing = error
        if reads is Reads.CERTIFIED:
            more_folders, more_files = self._only_on_s3(relative, below, {*folders, *files})
            if more_folders or more_files:
                missing = None
            folders += more_folders
            files += more_files
        if missing is not None:
            raise missing
        return _not_ours(below, folders), _not_ours(below, files)

    def _only_on_s3(self, folder: str, below: str, local: set[str]) -> tuple[list[str], list[str]]:
        try:
            folders, files = self.pair.s3.list_folder(folder, patient=False)
        except (S3Error, UnmovableError):
            self.pair.counters["read.unknown"] += 1
            return [], []
        return [name for name in folders if name not in local], [
            name
            for name in files
            if name not in local and not is_reserved(below + name) and self._is_file_of_s3(below + name)
        ]

    def _is_file_of_s3(self, name: str) -> bool:
        """Whether a listed object without a local file is a file, not what an operation has left."""
        return not self.pair.journal.has_hint(name) or self._has(name, self.policy)

    def path(self, name: str) -> str:
        """The file's absolute path, as long as the disk is the truth. Raises NotImplementedError after that."""
        policy = self.policy
        if not policy.local_truth:
            raise NotImplementedError(
                f"In phase {policy.phase} S3 is the truth, so there is no path by which to read or write {name!r}. "
                "Use open() of the storage instead of path()."
            )
        self.relative_name(name)  # refuses what is ours
        return super().path(name)

    def url(
        self,
        name: str | None,
        parameters: Mapping[str, Any] | None = None,
        expire: int | None = None,
        http_method: str | None = None,
    ) -> str:
        """Where a browser finds the file. Never asks the network.

        ``parameters``, ``expire`` (seconds) and ``http_method`` are those of S3Storage; a local URL has none.
        Raises ValueError for a local URL if the storage has no ``base_url``.
        """
        reads = self.policy.reads
        relative = self._name_in_url(name) if name else ""
        if reads is Reads.LOCAL or (reads is Reads.CERTIFIED and self._is_served_locally(relative)):
            return super().url(name)
        return self.pair.s3.url(relative, parameters, expire, http_method)

    def _name_in_url(self, name: str) -> str:
        """A URL may be that of a folder, and slashes before a name mean nothing, as Django has it."""
        text = str(name)
        if not text.startswith(f"{self.root}/"):
            text = text.lstrip("/\\")
        return self.relative_name(text) + ("/" if text.endswith("/") else "")

    def _is_served_locally(self, name: str) -> bool:
        if not name:
            return True
        pair = self.pair
        certain = self.known.certified and not pair.s3.looks_dead and not pair.journal.has_hint(name)
        return not certain and pair.local.exists(name)


def _not_ours(below: str, names: list[str]) -> list[str]:
    return [name for name in names if not is_reserved(below + name)]


@contextmanager
def _as_file(content: Content) -> Iterator[IO[bytes]]:
    """The content as one local file, for an upload without a local side."""
    if content.path is not None:
        with open(content.path, "rb") as upload:
            yield upload
        return
    file, path = scratch_file(settings.FILE_UPLOAD_TEMP_DIR, None, "w+b", None)
    with file:
        os.unlink(path)
        for chunk in content.chunks:
            write_all(file.fileno(), chunk.encode() if isinstance(chunk, str) else chunk)
        yield file
