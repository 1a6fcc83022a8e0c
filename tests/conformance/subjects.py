"""The storages that are held to one suite, and what each of them lacks by its nature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PHASES = ("filesystem", "mirror", "dual", "dual-strict", "s3-primary", "s3")

#: Opened files behave as Python's own do. Not so django-storages' S3File and Django's InMemoryStorage.
IO = "io"
#: A missing file is FileNotFoundError wherever it is asked for. django-storages lets the client's errors out.
ABSENCE = "absence"
#: Times other than that of the last change.
TIMES = "times"
#: Text is stored, as UTF-8. django-storages sends a checksum of something else; Django's memory keeps it as text.
TEXT = "text"
#: Content that has ``chunks()`` and no ``read()``. django-storages reads it.
CHUNKS = "chunks"
#: Files have paths.
PATHS = "paths"
#: Folders exist by themselves, be they empty.
FOLDERS = "folders"
#: The empty name is the whole storage: it exists and cannot be deleted.
NAMELESS = "nameless"

_OURS = frozenset({IO, ABSENCE, TIMES, TEXT, CHUNKS, NAMELESS})


@dataclass(frozen=True)
class Subject:
    """One storage."""

    name: str
    has: frozenset[str]
    #: Where the objects go, if it has any: ``seaweed`` or ``moto``.
    server: str = ""
    #: The phase, for ours.
    phase: str = ""
    #: A live probe has looked at the server, so creates are conditional requests.
    probed: bool = False

    def __str__(self) -> str:
        return self.name


def _ours(phase: str, server: str = "seaweed") -> Subject:
    has = _OURS if phase in {"s3-primary", "s3"} else _OURS | {PATHS, FOLDERS}
    return Subject(f"{phase}-{server}", has, server, phase, probed=phase not in {"mirror", "s3"})


SUBJECTS = (
    Subject("memory", frozenset({ABSENCE, TIMES, CHUNKS, FOLDERS})),
    Subject("files", _OURS | {PATHS, FOLDERS}),
    Subject("s3storage-seaweed", frozenset(), "seaweed"),
    Subject("s3storage-moto", frozenset(), "moto"),
    *map(_ours, PHASES),
    _ours("dual", "moto"),
    _ours("s3-primary", "moto"),
)


def having(*features: str) -> list[Subject]:
    """The storages that have all of these."""
    return [subject for subject in SUBJECTS if subject.has.issuperset(features)]


def content_of(storage: Any, name: str) -> bytes:
    """All bytes of a file."""
    with storage.open(name) as file:
        data: bytes = file.read()
        return data
