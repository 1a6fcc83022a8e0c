"""Many who save under one name at once: each gets a name of its own, and no byte is lost."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import TemporaryUploadedFile

from django_dualstorage.exceptions import NameTakenError
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, on_disk, on_s3, put_object
from tests.support.fork import run_in_child

WRITERS = 8


def save_all(storage: DualWriteStorage, who: list[int]) -> dict[str, bytes]:
    return {storage.save("race.txt", ContentFile(b"from %d" % number)): b"from %d" % number for number in who}


@pytest.mark.parametrize("probed", [True, False], ids=["conditions", "no conditions"])
@pytest.mark.parametrize("phase", ["filesystem", "mirror", "dual", "dual-strict", "s3-primary", "s3"])
def test_threads_that_save_one_name_get_a_name_each(make_storage: MakeStorage, phase: str, probed: bool) -> None:
    storage = make_storage(phase)
    if probed:
        assert probe(storage.pair)
    elif phase == "s3":
        pytest.skip("without conditions and without a lock nothing but chance keeps two apart")
    start = threading.Barrier(WRITERS)

    def run(number: int) -> dict[str, bytes]:
        start.wait()
        return save_all(storage, [number, number + 100])

    with ThreadPoolExecutor(WRITERS) as pool:
        results = list(pool.map(run, range(WRITERS)))
    saved = {name: content for result in results for name, content in result.items()}
    assert len(saved) == 2 * WRITERS
    for name, content in saved.items():
        with storage.open(name) as file:
            assert file.read() == content
    if storage.policy.writes_both:
        assert_sides_equal(storage)


@pytest.mark.parametrize("phase", ["filesystem", "dual", "s3"])
def test_processes_that_save_one_name_get_a_name_each(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    assert probe(storage.pair)
    with ThreadPoolExecutor(4) as pool:
        children = [pool.submit(run_in_child, save_all, storage, list(range(n, n + 5))) for n in (0, 10, 20, 30)]
        saved = {name: content for child in children for name, content in child.result().unwrap().items()}
    assert len(saved) == 20
    found = on_disk(storage) if phase == "filesystem" else on_s3(storage)
    assert {name: version.content for name, version in found.items()} == saved
    if phase == "dual":
        assert_sides_equal(storage)


class _Once(io.RawIOBase):
    """Content that can be read once, and lets something happen in the middle."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._parts = [b"first half, ", b"second half"]
        self._meanwhile = meanwhile

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._parts:
            return 0
        part = self._parts.pop(0)
        if not self._parts:
            self._meanwhile()
        buffer[: len(part)] = part
        return len(part)


def once(meanwhile: Callable[[], object]) -> File[Any]:
    stream: Any = _Once(meanwhile)
    return File(stream, name="once")


@pytest.mark.parametrize("phase", ["filesystem", "mirror", "dual", "dual-strict"])
def test_content_is_consumed_once_though_the_name_is_taken_meanwhile(
    make_storage: MakeStorage, media_root: Path, phase: str
) -> None:
    storage = make_storage(phase)
    content = once(lambda: (media_root / "a.txt").write_text("theirs"))
    name = storage.save("a.txt", content)
    assert name != "a.txt"
    assert (media_root / "a.txt").read_text() == "theirs"
    with storage.open(name) as file:
        assert file.read() == b"first half, second half"
    assert not [path for path in media_root.iterdir() if "tmp" in path.name]


@pytest.mark.parametrize("phase", ["dual", "s3-primary", "s3"])
@pytest.mark.parametrize("probed", [True, False], ids=["conditions", "no conditions"])
def test_content_is_consumed_once_though_the_name_is_taken_on_s3_meanwhile(
    make_storage: MakeStorage, phase: str, probed: bool
) -> None:
    storage = make_storage(phase)
    if probed:
        assert probe(storage.pair)
    name = storage.save("a.txt", once(lambda: put_object(storage, "a.txt", b"theirs")))
    assert name != "a.txt"
    assert on_s3(storage)["a.txt"].content == b"theirs"
    assert on_s3(storage)[name].content == b"first half, second half"


def test_an_upload_on_disk_survives_a_taken_name(make_storage: MakeStorage, media_root: Path) -> None:
    storage = make_storage("dual")
    put_object(storage, "a.txt", b"theirs")
    upload = TemporaryUploadedFile("a.txt", "text/plain", 4, None)
    upload.write(b"ours")
    upload.flush()
    name = storage.save("a.txt", upload)
    assert name != "a.txt"
    assert (media_root / name).read_bytes() == b"ours"
    upload.close()


class Elsewhere(DualWriteStorage):
    """A site that puts a file whose name is taken into another folder."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        folder, _, basename = name.rpartition("/")
        return f"{folder}/again/{basename}".lstrip("/") if self.exists(name) else name


def test_another_name_may_lie_in_another_folder(media_root: Path, s3_options: dict[str, Any]) -> None:
    storage = Elsewhere(media_root, "/media/", phase="dual", provider="seaweedfs", s3=s3_options)
    content = once(lambda: (media_root / "a.txt").write_text("theirs"))
    assert storage.save("a.txt", content) == "again/a.txt"
    assert storage.save("again/a.txt", ContentFile(b"2")) == "again/again/a.txt"


class Stubborn(DualWriteStorage):
    """A site whose storage gives out taken names."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return name


@pytest.mark.parametrize("phase", ["filesystem", "dual", "s3"])
def test_a_storage_that_gives_out_taken_names_ends_in_an_error(
    media_root: Path, s3_options: dict[str, Any], phase: str
) -> None:
    storage = Stubborn(media_root, "/media/", phase=phase, provider="seaweedfs", s3=s3_options)
    assert probe(storage.pair)
    storage.save("a.txt", ContentFile(b"1"))
    with pytest.raises(NameTakenError, match="get_available_name"):
        storage.save("a.txt", ContentFile(b"2"))
    with storage.open("a.txt") as file:
        assert file.read() == b"1"


class Reserving(DualWriteStorage):
    """A site whose storage gives out a name of ours."""

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        return ".dualstorage/key"


def test_a_storage_that_gives_out_a_name_of_ours_is_refused(media_root: Path, s3_options: dict[str, Any]) -> None:
    storage = Reserving(media_root, "/media/", phase="dual", provider="seaweedfs", s3=s3_options)
    with pytest.raises(SuspiciousFileOperation):
        storage.save("a.txt", ContentFile(b"1"))


class Saving:
    """Content that saves something else through the same storage while it is read."""

    name = "outer"

    def __init__(self, storage: DualWriteStorage, name: str) -> None:
        self._storage, self._name = storage, name

    def chunks(self) -> Iterator[bytes]:
        self._storage.save(self._name, ContentFile(b"inner"))
        assert self._storage.exists(self._name)
        yield b"outer"


@pytest.mark.parametrize("inner", ["a.txt", "b.txt"])
@pytest.mark.parametrize("phase", ["filesystem", "dual", "s3-primary", "s3"])
def test_content_may_use_the_storage_while_it_is_read(make_storage: MakeStorage, phase: str, inner: str) -> None:
    storage = make_storage(phase)
    assert probe(storage.pair)
    content: Any = Saving(storage, inner)
    name = storage.save("a.txt", content)
    assert (name == "a.txt") is (inner == "b.txt")
    with storage.open(inner) as one, storage.open(name) as other:
        assert (one.read(), other.read()) == (b"inner", b"outer")


def test_a_name_taken_while_an_exclusive_file_is_written_is_an_error(make_storage: MakeStorage) -> None:
    for phase in ("filesystem", "dual", "s3"):
        storage = make_storage(phase)
        assert probe(storage.pair)
        name = f"{phase}.txt"
        file = storage.open(name, "xb")
        file.write(b"mine")
        storage.save(name, ContentFile(b"theirs"))
        with pytest.raises(FileExistsError):
            file.close()
        with storage.open(name) as other:
            assert other.read() == b"theirs"


def test_concurrent_overwrites_leave_one_whole_version(make_storage: MakeStorage) -> None:
    storage = make_storage("dual", allow_overwrite=True)
    versions = [bytes([65 + number]) * 50_000 for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        assert set(pool.map(lambda data: storage.save("a.bin", ContentFile(data)), versions)) == {"a.bin"}
    assert_sides_equal(storage)
    assert os.path.getsize(storage.path("a.bin")) == 50_000
    with storage.open("a.bin") as file:
        assert file.read() in versions
