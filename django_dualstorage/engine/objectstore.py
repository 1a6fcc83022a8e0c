"""What the protocol needs of S3, in seven methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django_dualstorage.core.objects import ListedObject, ObjectInfo, Written


@dataclass(frozen=True)
class Source:
    """The bytes of an upload: a regular file that nobody writes any more. Read with ``pread``, so threads share it."""

    fd: int
    #: Bytes.
    size: int

    def read_all(self) -> bytes:
        """The whole content; for small files."""
        return self.read(0, self.size)

    def read(self, start: int, size: int) -> bytes:
        """``size`` bytes from ``start``, fewer only at the end of the file."""
        parts = []
        while size > 0:
            part = os.pread(self.fd, size, start)
            if not part:
                break
            parts.append(part)
            start += len(part)
            size -= len(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Condition:
    """What must hold on the server for a mutation to be carried out."""

    #: ``If-None-Match: *``: the key must be free.
    absent: bool = False
    #: ``If-Match``: the object must still have this ETag.
    etag: str | None = None


ALWAYS = Condition()


def unnoted() -> None:
    """For ``sending`` where there is no journal: S3's answer is all there is."""


class Body(Protocol):
    """The answer to a GET."""

    @property
    def info(self) -> ObjectInfo:
        """What the headers say."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, empty at the end. Raises S3TransientError if the answer breaks off."""

    def close(self) -> None:
        """Give the connection back, or up if bytes are left."""


class ObjectStore(Protocol):
    """One bucket.

    Every method raises S3TransientError where no usable answer came, S3Error for a refusal that will not change by
    itself. ``sending`` is called when a mutation is about to leave, never if it does not.
    """

    def put(
        self,
        key: str,
        source: Source,
        parameters: Mapping[str, Any],
        condition: Condition = ALWAYS,
        *,
        sending: Callable[[], None],
    ) -> Written:
        """Write the object whole: the server has verified a checksum of it when this returns.

        ``parameters`` are those of the S3 API (ContentType, Metadata, ACL, ...). Raises S3PreconditionError.
        """

    def get(self, key: str, *, start: int = 0, etag: str | None = None) -> Body:
        """Read from byte ``start``, of the object that has ``etag`` where given.

        Raises S3NotFoundError on ``NoSuchKey`` only, S3PreconditionError if the object has changed.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """What the object is, None if there is none. A 404 to a HEAD is not believed, since a missing bucket gives
        the same: it is confirmed by a GET.
        """

    def delete(self, key: str, condition: Condition = ALWAYS, *, sending: Callable[[], None]) -> Written:
        """Remove the object; removing none is fine. Raises S3PreconditionError."""

    def restamp(self, info: ObjectInfo, parameters: Mapping[str, Any], *, sending: Callable[[], None]) -> Written:
        """Give the object new metadata by copying it onto itself, if it still is the one described."""

    def list_all(self, prefix: str) -> Iterator[ListedObject]:
        """Every object whose key begins with ``prefix``, in the server's own order."""

    def list_folder(self, prefix: str) -> tuple[list[str], list[str]]:
        """The folder prefixes and the keys directly below ``prefix``, which ends with a slash or is empty."""
