"""Whatever Django accepts as content arrives whole, once, and as it was."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import InMemoryUploadedFile, SimpleUploadedFile, TemporaryUploadedFile
from django.test import override_settings

from tests.conformance.subjects import CHUNKS, PATHS, TEXT, TIMES, Subject, content_of, having

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


def pipe() -> File[bytes]:
    stream: Any = Pipe(DATA)
    return File(stream, name="pipe")


def half_read() -> File[bytes]:
    file = ContentFile(DATA)
    file.read(1000)
    return file


def upload_on_disk() -> TemporaryUploadedFile:
    upload = TemporaryUploadedFile("t.bin", "application/x-test", len(DATA), None)
    upload.write(DATA)
    upload.seek(0)
    return upload


KINDS: dict[str, tuple[Callable[[], Any], bytes]] = {
    "bytes": (lambda: ContentFile(DATA), DATA),
    "no bytes": (lambda: ContentFile(b""), b""),
    "plain stream": (lambda: io.BytesIO(DATA), DATA),
    "already read": (half_read, DATA),
    "small upload": (lambda: SimpleUploadedFile("s.bin", DATA), DATA),
    "upload in memory": (lambda: InMemoryUploadedFile(io.BytesIO(DATA), None, "m", None, len(DATA), None), DATA),
    "upload on disk": (upload_on_disk, DATA),
    "not seekable": (pipe, DATA),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_content_arrives_whole(storage: Any, subject: Subject, box: str, kind: str) -> None:
    make, expected = KINDS[kind]
    content = make()
    name = storage.save(f"{box}/saved.bin", content)
    assert content_of(storage, name) == expected
    assert storage.size(name) == len(expected)
    content.close()


@pytest.mark.parametrize("subject", having(TEXT), indirect=True, ids=str)
@pytest.mark.parametrize("make", [ContentFile, io.StringIO])
def test_text_is_stored_as_utf8(storage: Any, box: str, make: Callable[[str], Any]) -> None:
    name = storage.save(f"{box}/text.txt", make("ünïcödé €\n"))
    assert content_of(storage, name) == "ünïcödé €\n".encode()


@pytest.mark.parametrize("subject", having(CHUNKS), indirect=True, ids=str)
@pytest.mark.parametrize("chunks", [(b"ab", b"", b"cd"), ("ä", "€"), ()], ids=["bytes", "text", "none"])
def test_chunks_are_enough(storage: Any, subject: Subject, box: str, chunks: tuple[Any, ...]) -> None:
    name = storage.save(f"{box}/chunks.bin", Chunked(*chunks))
    expected = b"".join(chunk.encode() if isinstance(chunk, str) else chunk for chunk in chunks)
    with storage.open(name) as file:
        found = file.read()  # memory keeps text as text
    assert (found.encode() if isinstance(found, str) else found) == expected


def test_the_content_is_left_open_and_may_be_closed(storage: Any, box: str, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(DATA)
    with open(tmp_path / "source", "rb") as source:
        name = storage.save(f"{box}/a.bin", File(source))
        assert not source.closed
    assert content_of(storage, name) == DATA


def test_a_file_of_the_storage_is_content_for_another(storage: Any, box: str) -> None:
    first = storage.save(f"{box}/a.bin", ContentFile(DATA))
    with storage.open(first) as file:
        second = storage.save(f"{box}/b.bin", file)
    assert content_of(storage, second) == DATA


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
    with override_settings(USE_TZ=use_tz):
        name = storage.save(f"{box}/a.txt", ContentFile(b"x"))
        times = [ask(name) for ask in (storage.get_modified_time, storage.get_created_time, storage.get_accessed_time)]
    assert all((when.tzinfo is not None) is use_tz for when in times)
    assert max(times) - min(times) < timedelta(seconds=5)
