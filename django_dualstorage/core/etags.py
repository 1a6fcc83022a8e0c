"""The ETag that S3 gives to an upload, where it is a checksum of the bytes."""

from __future__ import annotations

import hashlib
import re

_ETAG = re.compile(r'"([0-9a-f]{32})(?:-(\d{1,5}))?"')


class EtagDigest:
    """Computes what the ETag of these bytes would be.

    "Checking object integrity", Amazon S3 User Guide: the MD5 of an object that was put whole; of one put in parts the
    MD5 of the parts' MD5s, and their number. Neither under SSE-C or SSE-KMS; then it fits no bytes at all.
    """

    def __init__(self, part_size: int | None) -> None:
        """``part_size`` in bytes; None for an object that was put whole."""
        self._part_size = part_size
        self._whole = hashlib.md5(usedforsecurity=False)
        self._part = hashlib.md5(usedforsecurity=False)
        self._in_part = 0
        self._parts = 0

    @classmethod
    def like(cls, etag: str, size: int, part_size: int) -> EtagDigest | None:
        """For an object of ``size`` bytes with this ETag; ``part_size`` is that of this package's own uploads.

        None where the rule cannot be known: another tool's parts, or no such ETag.
        """
        found = _ETAG.fullmatch(etag)
        if found is None:
            return None
        if found[2] is None:
            return cls(None)
        return cls(part_size) if int(found[2]) == max(1, -(-size // part_size)) else None

    def update(self, data: bytes) -> None:
        """The next bytes."""
        if self._part_size is None:
            self._whole.update(data)
            return
        view = memoryview(data)
        while view:
            piece = view[: self._part_size - self._in_part]
            self._part.update(piece)
            self._in_part += len(piece)
            view = view[len(piece) :]
            if self._in_part == self._part_size:
                self._end_part()

    def etag(self) -> str:
        """With its quotes, as S3 writes it. Call it once, at the end."""
        if self._part_size is None:
            return f'"{self._whole.hexdigest()}"'
        if self._in_part or not self._parts:
            self._end_part()
        return f'"{self._whole.hexdigest()}-{self._parts}"'

    def _end_part(self) -> None:
        self._whole.update(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._in_part = 0
        self._parts += 1
