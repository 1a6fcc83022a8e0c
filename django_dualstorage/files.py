"""What ``open()`` hands out: Django files over the protocol's streams."""

from __future__ import annotations

import fcntl
import io
import os
import tempfile
from collections.abc import Callable
from typing import IO, Any

from django.core.files import File

from django_dualstorage.protocol.streams import S3Stream

_BUFFER = 64 * 1024


class StoredFile(File):  # type: ignore[type-arg]  # generic in the stubs only
    """A file opened for reading. Behaves as Python's own files do, on both sides."""

    def __init__(
        self, file: IO[Any], name: str, mode: str, size: int | None, reopen: Callable[[str], File[Any]]
    ) -> None:
        super().__init__(file, name)
        self.mode = mode
        self._reopen = reopen
        if size is not None:
            self.size = size

    def open(self, mode: str | None = None, *args: Any, **kwargs: Any) -> StoredFile:
        """Back to the beginning, or open it again if it was closed."""
        if not self.closed:
            self.seek(0)
        else:
            again = self._reopen(mode or self.mode)
            self.file = again.file
            self.mode = mode or self.mode
        return self


def reading(
    raw: IO[bytes] | io.RawIOBase, path: str, name: str, mode: str, reopen: Callable[[str], File[Any]]
) -> StoredFile:
    """A Django file over what the protocol opened.

    Its name is the absolute ``path`` where the disk has the file, as FileSystemStorage has it, else ``name``.
    """
    size = raw.info.size if isinstance(raw, S3Stream) else None
    shown = name if isinstance(raw, S3Stream) else path
    buffered: Any = io.BufferedReader(raw, _BUFFER) if isinstance(raw, io.RawIOBase) else raw
    if "b" not in mode:
        buffered = io.TextIOWrapper(buffered)
    return StoredFile(buffered, shown, mode, size, reopen)


class WritingFile(File):  # type: ignore[type-arg]  # generic in the stubs only
    """A file opened for writing: a private copy that is saved, whole, when it is closed."""

    def __init__(self, scratch: IO[Any], path: str, name: str, mode: str, save: Callable[[str], None]) -> None:
        super().__init__(scratch, name)
        self.mode = mode
        self._path = path
        self._save = save
        self._saved = False

    def close(self) -> None:
        """Save what was written. Raises what saving raises; the old version stands then."""
        if self._saved:
            return
        self._saved = True
        self.file.close()  # type: ignore[union-attr]  # never None here
        try:
            self._save(self._path)
        finally:
            if os.path.exists(self._path):
                os.unlink(self._path)

    def __del__(self) -> None:
        # Python's own files write out what they hold when they are forgotten unclosed; so does this one.
        if getattr(self, "_saved", True) is False:
            self.close()


def scratch_file(folder: str | None, basename: str | None, mode: str, content: IO[bytes] | None) -> tuple[IO[Any], str]:
    """A private file to write into, beginning with ``content``, and its path.

    It lies in ``folder`` under ``basename`` so that saving is a rename, or among the temporary files. It is locked
    while it is open, by which the sweeper of forgotten files knows that it is not one.
    """
    if folder is None or basename is None:
        fd, path = tempfile.mkstemp(suffix=".dualstorage", dir=folder)
    else:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, basename)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with os.fdopen(os.dup(fd), "wb") as beginning:
        while content is not None and (chunk := content.read(1024 * 1024)):
            beginning.write(chunk)
    # "w" and "x" mean a new file, and this one is; truncating it again is what "w" does.
    plain = mode.replace("x", "w")
    os.lseek(fd, 0, os.SEEK_SET)
    return os.fdopen(fd, plain), path
