"""What ``open()`` hands out: Django files over the protocol's streams."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from django.core.files import File

from django_dualstorage.protocol.streams import S3Stream

_BUFFER = 64 * 1024


@dataclass(frozen=True)
class Opened:
    """What stands behind a file while it is open."""

    file: Any
    #: The absolute path where the disk has the file, as FileSystemStorage has it, else the relative name.
    name: str
    #: Bytes, where the file itself cannot tell without being read.
    size: int | None = None
    #: Closes a file that was written, and saves it. Raises what saving raises; the old version stands then.
    finish: Callable[[], None] | None = None


class StoredFile(File):  # type: ignore[type-arg]  # generic in the stubs only
    """A file of the storage. Behaves as Python's own files do, on both sides.

    What is written goes into a private copy, which is saved, whole, when the file is closed.
    """

    def __init__(self, mode: str, opener: Callable[[str], Opened]) -> None:
        """``opener(mode)`` opens the file, now and whenever it is opened again."""
        self._opener = opener
        self._pid = os.getpid()
        self._finish: Callable[[], None] | None = None
        opened = opener(mode)
        super().__init__(opened.file, opened.name)
        self._become(opened, mode)

    def _become(self, opened: Opened, mode: str) -> None:
        self.file, self.name, self.mode = opened.file, opened.name, mode
        self._finish = opened.finish
        # Django keeps the size that it has once asked for.
        self.__dict__.pop("size", None)
        if opened.size is not None:
            self.size = opened.size

    def open(self, mode: str | None = None, *args: Any, **kwargs: Any) -> StoredFile:
        """Back to the beginning, or open it again if it was closed."""
        if not self.closed:
            self.seek(0)
        else:
            mode = mode or self.mode
            self._become(self._opener(mode), mode)
        return self

    def close(self) -> None:
        """Close it; what was written is saved now. Raises what saving raises."""
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()
        else:
            super().close()

    def __del__(self) -> None:
        # Python's own files write out what they hold when they are forgotten unclosed; so does this one.
        # Not in a forked child: the parent is still writing.
        if getattr(self, "_finish", None) is not None and self._pid == os.getpid():
            self.close()


def for_reading(raw: IO[bytes] | io.RawIOBase, path: str, name: str, mode: str) -> Opened:
    """Over what the protocol opened: the file at ``path``, or an object where only S3 has ``name``."""
    file: Any = io.BufferedReader(raw, _BUFFER) if isinstance(raw, io.RawIOBase) else raw
    if "b" not in mode:
        file = io.TextIOWrapper(file)
    if isinstance(raw, S3Stream):
        return Opened(file, name, raw.info.size)
    return Opened(file, path)


def for_writing(scratch: IO[Any], path: str, name: str, save: Callable[[str], None]) -> Opened:
    """A scratch file at ``path``, which ``save(path)`` makes the new version."""

    def finish() -> None:
        try:
            scratch.close()
            save(path)
        finally:
            with contextlib.suppress(FileNotFoundError):  # saving moves it, where it can
                os.unlink(path)

    return Opened(scratch, name, finish=finish)


def scratch_file(folder: str | None, basename: str | None, mode: str, content: IO[bytes] | None) -> tuple[IO[Any], str]:
    """A private file to write into, beginning with ``content``, and its path.

    It lies in ``folder`` under ``basename`` so that saving is a rename, or among the temporary files. It is locked
    while it is open, by which the sweeper of forgotten files knows that it is not one.
    """
    if folder is None or basename is None:
        fd, path = tempfile.mkstemp(suffix=".dualstorage", dir=folder)
    else:
        path = os.path.join(folder, basename)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with os.fdopen(os.dup(fd), "wb") as beginning:
            while content is not None and (chunk := content.read(1024 * 1024)):
                beginning.write(chunk)
        os.lseek(fd, 0, os.SEEK_SET)
        if "a" in mode:
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        # "x" means a new file, and this one is.
        return os.fdopen(fd, mode.replace("x", "w")), path
    except BaseException:
        os.close(fd)
        os.unlink(path)
        raise
