"""What the two sides say about one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django_dualstorage.core.stamp import OP_KEY, Stamp, stamp_of


def bare_etag(etag: str) -> str:
    """The ETag without its quotes, which not every answer of every server has."""
    return etag.strip('"')


@dataclass(frozen=True)
class ObjectInfo:
    """An S3 object as a HEAD or a GET describes it."""

    key: str
    #: Bytes.
    size: int
    #: With its quotes, as S3 writes it.
    etag: str
    last_modified: datetime
    content_type: str = ""
    content_encoding: str = ""
    #: User metadata, names in lower case.
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def stamp(self) -> Stamp | None:
        """The local version it was made from; None if somebody else put it there."""
        return stamp_of(self.metadata)

    @property
    def op_id(self) -> str | None:
        """The operation that wrote it."""
        return self.metadata.get(OP_KEY)


@dataclass(frozen=True)
class ListedObject:
    """An S3 object as a listing describes it: a listing carries no metadata, so no stamp."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Written:
    """S3's answer to a mutation."""

    #: The server answered 2xx to the only attempt, so nothing of it can land later.
    clean: bool
    etag: str = ""
