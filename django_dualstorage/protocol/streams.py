"""The bytes of an opened file, wherever they come from, as Python's own raw streams."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.engine.objectstore import Body
from django_dualstorage.exceptions import S3PreconditionError, S3TransientError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_AHEAD = 64 * 1024


class _Stream(io.RawIOBase):
    """A readable, seekable stream over :meth:`_read_at`. Seeking costs nothing until something is read."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0

    def _read_at(self, position: int, size: int) -> bytes:
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        starts = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        if whence not in starts or starts[whence] + offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._position = starts[whence] + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._next(len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        parts = []
        while data := self._next(max(self._size - self._position, 0)):
            parts.append(data)
        return b"".join(parts)

    def _next(self, size: int) -> bytes:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        size = min(size, self._size - self._position)
        if size <= 0:
            return b""
        data = self._read_at(self._position, size)
        self._position += len(data)
        return data


class CertifiedStream(_Stream):
    """The body of a certified object, backed by the open local file of the very same version.

    When the body breaks off, ends early, or is left by a seek, the local descriptor goes on at the same offset: no
    second request, and no error that the disk can answer.
    """

    def __init__(self, local: BinaryIO, body: Body, size: int, on_break: Callable[[], None]) -> None:
        super().__init__(size)
        self._local = local
        self._body: Body | None = body
        self._body_at = 0
        self._on_break = on_break

    def fileno(self) -> int:
        """The local descriptor, at the same place in the same bytes, for ``sendfile`` and ``fstat``."""
        os.lseek(self._local.fileno(), self._position, os.SEEK_SET)
        return self._local.fileno()

    def _read_at(self, position: int, size: int) -> bytes:
        if self._body is not None:
            data = self._read_body(self._body, position, size)
            if data:
                return data
            self._drop_body()
        return os.pread(self._local.fileno(), size, position)

    def _read_body(self, body: Body, position: int, size: int) -> bytes:
        if position != self._body_at:
            return b""
        try:
            data = body.read(size)
        except S3TransientError:
            data = b""
        if not data:
            self._on_break()
        self._body_at += len(data)
        return data

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.close()
            self._body = None

    def close(self) -> None:
        if not self.closed:
            self._drop_body()
            self._local.close()
        super().close()


class S3Stream(_Stream):
    """An object read where the disk cannot help: resumes with ``Range`` and ``If-Match``."""

    _TRIES = 3

    def __init__(self, body: Body, reopen: Callable[[int, str], Body]) -> None:
        """``reopen(start, etag)`` is a new GET of the same version from ``start``."""
        super().__init__(body.info.size)
        self.info: ObjectInfo = body.info
        self._body = body
        self._body_at = 0
        self._reopen = reopen

    def _read_at(self, position: int, size: int) -> bytes:
        for left in reversed(range(self._TRIES)):
            try:
                self._go_to(position)
                data = self._body.read(size)
                if not data:
                    raise S3TransientError(
                        f"S3's answer for {self.info.key} ended at byte {position} of {self.info.size}; try again"
                    )
            except S3PreconditionError as error:
                raise S3TransientError(
                    f"{self.info.key} was replaced on S3 while it was being read; open it again"
                ) from error
            except S3TransientError:
                self._body_at = -1  # whatever it is, it is not there any more
                if not left:
                    raise
            else:
                self._body_at += len(data)
                return data
        raise AssertionError("unreachable")

    def _go_to(self, position: int) -> None:
        ahead = position - self._body_at
        if self._body_at >= 0 and 0 <= ahead <= _READ_AHEAD:
            while ahead > 0:
                skipped = len(self._body.read(ahead))
                if not skipped:
                    break
                ahead -= skipped
                self._body_at += skipped
        if self._body_at != position:
            self._body.close()
            self._body = self._reopen(position, self.info.etag)
            self._body_at = position

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()
