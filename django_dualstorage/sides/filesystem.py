"""The filesystem side: complete files appear under their name in one step, or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from django_dualstorage.core.names import staged_name
from django_dualstorage.core.stamp import Stamp, next_mtime_ns
from django_dualstorage.engine.objectstore import Source
from django_dualstorage.exceptions import NameTakenError, UnmovableError

if TYPE_CHECKING:
    from typing_extensions import Self

#: O_NONBLOCK: opening a pipe must not wait for its other end. O_NOFOLLOW: links are resolved first.
_FOR_READING: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True)
class Content:
    """What is to be saved: chunks to write, or a temporary file to move."""

    chunks: Iterable[bytes | str]
    #: An upload that lies in a file of its own already; moved, not copied, as Django does.
    path: str | None = None
    #: The upload's own content type, empty if it has none.
    content_type: str = ""


class StagedFile:
    """A complete new version beside its final name, invisible until :meth:`create` or :meth:`replace`."""

    def __init__(
        self, side: FilesystemSide, path: str, target: str, fd: int, upload: str | None = None, *, moved: bool = False
    ) -> None:
        """``upload`` is the file that the bytes came from, if they came from one: ``moved`` here, or copied."""
        # Who looks for forgotten files must not take one that is uploaded for hours for one of them.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._side = side
        self._path = path
        self._target = target
        self._fd = fd
        self._upload = upload
        self._moved = moved
        self._gone = False

    def move_to(self, name: str, op_id: str) -> None:
        """Go beside another name, under another operation: the first name turned out to be taken."""
        target = self._side.path(name)
        folder = os.path.dirname(target)
        self._side.make_folder(folder)  # a site's get_available_name may have changed it
        path = os.path.join(folder, staged_name(op_id))
        os.rename(self._path, path)
        self._path, self._target = path, target

    @property
    def source(self) -> Source:
        """Its bytes, for an upload."""
        return Source(self._fd, os.fstat(self._fd).st_size)

    def stamp(self, replaced: Stamp | None) -> Stamp:
        """Give it the modification time that makes it a version of its own."""
        mtime_ns = next_mtime_ns(replaced.mtime_ns if replaced else None)
        os.utime(self._fd, ns=(mtime_ns, mtime_ns))
        return Stamp(os.fstat(self._fd).st_size, mtime_ns)

    def keep_mtime(self, mtime_ns: int) -> None:
        """Give it a modification time that is known already: a version that comes home from S3."""
        os.utime(self._fd, ns=(mtime_ns, mtime_ns))

    def create(self) -> None:
        """Commit under a name that must be free. Raises NameTakenError."""
        self._side.settle(self._fd)
        try:
            os.link(self._path, self._target)
        except FileExistsError:
            raise NameTakenError(f"{self._target} exists already") from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # No hard links here (FAT, some network filesystems). The name's lock is held, so only a writer that
            # goes around the storage could come in between.
            if os.path.lexists(self._target):
                raise NameTakenError(f"{self._target} exists already") from None
            os.rename(self._path, self._target)
        else:
            os.unlink(self._path)
        self._committed()

    def replace(self) -> None:
        """Commit over whatever has the name."""
        self._side.settle(self._fd)
        os.rename(self._path, self._target)
        self._committed()

    def _committed(self) -> None:
        self._gone = True
        if self._upload is not None and not self._moved:
            os.unlink(self._upload)
        self._side.settle_folder(os.path.dirname(self._target))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.discard()

    def discard(self) -> None:
        """Drop it, if it was not committed; an upload is then where it was before, so that it can be saved again."""
        if not self._gone:
            self._gone = True
            if self._upload is not None and self._moved:
                os.rename(self._path, self._upload)
            else:
                os.unlink(self._path)
        os.close(self._fd)


class FilesystemSide:
    """The files below MEDIA_ROOT. Names are relative to it and checked already; nothing here asks S3."""

    def __init__(
        self, root: str, *, file_mode: int | None = None, folder_mode: int | None = None, fsync: bool = False
    ) -> None:
        self.root = root
        self._file_mode = file_mode
        self._folder_mode = folder_mode
        self._fsync = fsync

    def path(self, name: str) -> str:
        """The absolute path of ``name``."""
        return os.path.join(self.root, name)

    # -- reading ---------------------------------------------------------------------------------------------------

    def exists(self, name: str) -> bool:
        """Whether the name is taken, be it by a broken link."""
        return os.path.lexists(self.path(name))

    def version(self, name: str) -> Stamp | None:
        """The version of the file now; None if there is no regular file."""
        try:
            status = os.stat(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stamp(status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None

    def open(self, name: str) -> tuple[BinaryIO, Stamp]:
        """The file and the version that was opened, for reading. Raises FileNotFoundError and the like."""
        file = open(self.path(name), "rb")  # noqa: SIM115  handed to the caller
        return file, version_of(file.fileno())

    def open_movable(self, name: str) -> tuple[BinaryIO, Stamp]:
        """The file, for a copy to S3.

        A link that leads out of MEDIA_ROOT would publish its target, and a pipe or device would hang: neither is
        opened. Raises UnmovableError, FileNotFoundError.
        """
        path = self.path(name)
        fd = self._open_inside(path)
        if fd is None:
            fd = self._open_resolved(path)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise UnmovableError("special", "is a folder, device or pipe, not a file")
        # Unbuffered: a buffer costs more than it saves where a file is read whole.
        return cast("BinaryIO", os.fdopen(fd, "rb", buffering=0)), version_of(fd)

    def _open_inside(self, path: str) -> int | None:
        """The quick way: what was opened is asked where it lies. None if that is not known, or outside MEDIA_ROOT."""
        try:
            fd = os.open(path, _FOR_READING)
        except OSError:
            return None
        try:
            inside = os.readlink(f"/proc/self/fd/{fd}").startswith(self._real_root + os.sep)
        except OSError:
            inside = False
        if inside:
            return fd
        os.close(fd)
        return None

    @cached_property
    def _real_root(self) -> str:
        return os.path.realpath(self.root)

    def _open_resolved(self, path: str) -> int:
        """The long way, for links and for what has to be told. Raises UnmovableError, FileNotFoundError."""
        real = os.path.realpath(path)
        if real != path and not real.startswith(os.path.realpath(self.root) + os.sep):
            raise UnmovableError("symlink", f"leads to {real}, outside MEDIA_ROOT; copy the file in or remove the link")
        try:
            return os.open(real, _FOR_READING)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(path):
                raise UnmovableError("symlink", "is a link to nothing; remove it") from None
            raise
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise UnmovableError("special", "is a socket or a pipe, not a file; remove it") from None
            if error.errno == errno.ELOOP:
                raise UnmovableError("symlink", "is a loop of links; remove it") from None
            raise UnmovableError(
                "unreadable", f"cannot be read ({error.strerror}); give the user that runs this command read permission"
            ) from error

    # -- writing ---------------------------------------------------------------------------------------------------

    def stage(self, name: str, op_id: str, content: Content, purpose: str = "") -> StagedFile:
        """A complete copy of ``content`` beside the name, not yet visible under it.

        ``purpose`` keeps apart what one operation stages: its own content, or a version that it brings "home" first.
        """
        target = self.path(name)
        folder = os.path.dirname(target)
        path = os.path.join(folder, staged_name(op_id, purpose))
        if content.path is not None:
            self.make_folder(folder)
            fd, moved = _move(content.path, path)
            staged = StagedFile(self, path, target, fd, content.path, moved=moved)
        else:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                fd = os.open(path, flags, 0o666)
            except (FileNotFoundError, NotADirectoryError):
                self.make_folder(folder)
                fd = os.open(path, flags, 0o666)
            staged = StagedFile(self, path, target, fd)
            try:
                for chunk in content.chunks:
                    write_all(fd, chunk.encode() if isinstance(chunk, str) else chunk)
            except BaseException:
                staged.discard()
                raise
        try:
            self._give_permissions(fd)
        except BaseException:
            staged.discard()
            raise
        return staged

    def remove_staged(self, name: str, op_id: str) -> None:
        """Remove what a killed operation staged."""
        folder = os.path.dirname(self.path(name))
        for purpose in ("", "home"):
            try:
                os.unlink(os.path.join(folder, staged_name(op_id, purpose)))
            except (FileNotFoundError, NotADirectoryError):
                continue

    def unlink(self, name: str) -> None:
        """Remove the file, or the empty folder, as FileSystemStorage does; nothing there is fine."""
        path = self.path(name)
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                os.rmdir(path)
            else:
                os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return
        self.settle_folder(os.path.dirname(path))

    def _give_permissions(self, fd: int) -> None:
        if self._file_mode is not None:
            os.fchmod(fd, self._file_mode)
        group = os.stat(self.root).st_gid
        if os.fstat(fd).st_gid != group:
            try:
                os.fchown(fd, -1, group)
            except PermissionError:
                return  # not a member of the group: Django leaves it at that, too

    def make_folder(self, folder: str) -> None:
        """Make it and those above it, with the permissions configured; one that is there already is left alone."""
        missing = []
        at = folder
        while not os.path.isdir(at):
            missing.append(at)
            parent = os.path.dirname(at)
            if parent == at:
                break
            at = parent
        for path in reversed(missing):
            try:
                os.mkdir(path)
                if self._folder_mode is not None:
                    os.chmod(path, self._folder_mode)  # the umask has cut the mode of mkdir
            except (FileExistsError, NotADirectoryError):
                if not os.path.isdir(path):
                    raise FileExistsError(f"{path} exists and is not a directory.") from None

    def settle(self, fd: int) -> None:
        """Wait until the bytes are on the disk itself, where configured."""
        if self._fsync:
            os.fsync(fd)

    def settle_folder(self, folder: str) -> None:
        """Wait until the names in ``folder`` are on the disk itself, where configured."""
        if self._fsync:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def version_of(fd: int) -> Stamp:
    """The version of an open file."""
    status = os.fstat(fd)
    return Stamp(status.st_size, status.st_mtime_ns)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """``os.write`` until everything is written; it may stop short on a signal or a nearly full disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _move(source: str, target: str) -> tuple[int, bool]:
    """Move, or copy where the two are on different filesystems: the open file, and whether it was moved."""
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        moved = False
    else:
        moved = True
    try:
        if not moved:
            shutil.copyfile(source, target)
        return os.open(target, os.O_RDWR | os.O_CLOEXEC), moved
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            if moved:
                os.rename(target, source)
            else:
                os.unlink(target)
        raise
