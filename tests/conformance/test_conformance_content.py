"""Whatever Django accepts as content arrives whole, once, and as it was."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.test import override_settings

from tests.conformance.subjects import CHUNKS, PATHS, TIMES, Subject, having

DATA = os.urandom(150_000)


class Pipe(io.RawIOBase):
    """A stream that can be read once, as a socket can."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._left.readinto(buffer)


class Chunked:
    """Content with nothing but chunks."""

    name = "chunked"

    def __init__(self, *chunks: bytes | str) -> None:
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes | str]:
        yield from self._chunks


def contents(folder: Path) -> dict[str, tuple[Any, bytes]]:
    (folder / "source").write_bytes(DATA)
    half_read = ContentFile(DATA)
    half_read.read(1000)
    temporary = TemporaryUploadedFile("t.bin", "application/x-test", len(DATA), None)
    temporary.write(DATA)
    temporary.seek(0)
    return {
        "bytes": (ContentFile(DATA), DATA),
        "no bytes": (ContentFile(b""), b""),
        "text": (ContentFile("ünïcödé €"), "ünïcödé €".encode()),
        "a plain stream": (io.BytesIO(DATA), DATA),
        "a plain stream of text": (io.StringIO("text €\n"), "text €\n".encode()),
        "a file": (File(open(folder / "source", "rb")), DATA),
        "already read": (half_read, DATA),
        "small upload": (SimpleUploadedFile("s.bin", DATA), DATA),
        "upload in memory": (InMemoryUploadedFile(io.BytesIO(DATA), None, "m", None, len(DATA), None), DATA),
        "upload on disk": (temporary, DATA),
        "not seekable": (File(Pipe(DATA), name="pipe"), DATA),
    }


KINDS = [
    "bytes",
    "no bytes",
    "text",
    "a plain stream",
    "a plain stream of text",
    "a file",
    "already read",
    "small upload",
    "upload in memory",
    "upload on disk",
    "not seekable",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_content_arrives_whole(
    storage: Any, subject: Subject, box: str, tmp_path: Path, kind: str
) -> None:
    all_contents = contents(tmp_path)
    content, expected = all_contents[kind]
    name = storage.save(f"{box}/saved.bin", content)
    with storage.open(name) as file:
        assert file.read() == (expected.decode() if subject.name == "memory" and "text" in kind else expected)
    assert storage.size(name) == len(expected)
    for other, _ in all_contents.values():
        other.close()


@pytest.mark.parametrize("subject", having(CHUNKS), indirect=True, ids=str)
@pytest.mark.parametrize("chunks", [(b"ab", b"", b"cd"), ("ä", "€"), ()], ids=["bytes", "text", "none"])
def test_chunks_are_enough(storage: Any, subject: Subject, box: str, chunks: tuple[Any, ...]) -> None:
    name = storage.save(f"{box}/chunks.bin", Chunked(*chunks))
    expected = b"".join(chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks)
    found = storage.open(name).read()
    assert (found.encode() if isinstance(found, str) else found) == expected


def test_the_content_is_left_open_and_may_be_closed(storage: Any, box: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    with open(tmp_path / "source", "rb") as source:
        name = storage.save(f"{box}/a.bin", File(source))
        assert not source.closed
    assert storage.open(name).read() == DATA


def test_a_file_of_the_storage_is_content_for_another(storage: Any, box: str) -> None:
    first = storage.save(f"{box}/a.bin", ContentFile(DATA))
    with storage.open(first) as file:
        second = storage.save(f"{box}/b.bin", file)
    assert storage.open(second).read() == DATA


@pytest.mark.parametrize("subject", having(PATHS), indirect=True, ids=str)
def test_an_upload_on_disk_is_moved_not_copied(storage: Any, box: str) -> None:
    upload = TemporaryUploadedFile("t.bin", "application/x-test", len(DATA), None)
    upload.write(DATA)
    upload.flush()
    inode = os.stat(upload.temporary_file_path()).st_ino
    same_disk = os.stat(upload.temporary_file_path()).st_dev == os.stat(storage.location).st_dev
    name = storage.save(f"{box}/a.bin", upload)
    assert not os.path.exists(upload.temporary_file_path())
    if same_disk:
        assert os.stat(storage.path(name)).st_ino == inode
    upload.close()


def test_times_say_when_it_was_written(storage: Any, box: str) -> None:
    before = datetime.now(timezone.utc)
    name = storage.save(f"{box}/a.txt", ContentFile(b"x"))
    when = storage.get_modified_time(name)
    assert when.tzinfo is not None
    # S3's times are whole seconds.
    assert before - timedelta(seconds=2) < when < datetime.now(timezone.utc) + timedelta(seconds=2)


@override_settings(USE_TZ=False)
def test_times_are_naive_and_local_without_time_zones(storage: Any, box: str) -> None:
    name = storage.save(f"{box}/a.txt", ContentFile(b"x"))
    when = storage.get_modified_time(name)
    assert when.tzinfo is None
    assert abs(when - datetime.now()) < timedelta(seconds=5)


@pytest.mark.parametrize("subject", having(TIMES), indirect=True, ids=str)
@pytest.mark.parametrize("use_tz", [True, False])
def test_all_three_times_are_of_one_kind(storage: Any, box: str, use_tz: bool) -> None:
    name = storage.save(f"{box}/a.txt", ContentFile(b"x"))
    with override_settings(USE_TZ=use_tz):
        times = [ask(name) for ask in (storage.get_modified_time, storage.get_created_time, storage.get_accessed_time)]
    assert all((when.tzinfo is not None) is use_tz for when in times)
    assert max(times) - min(times) < timedelta(seconds=5)
