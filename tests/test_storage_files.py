"""Files that are opened, on the paths that only trouble takes."""

from __future__ import annotations

import gc
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core.names import is_staged
from django_dualstorage.exceptions import NotOnDiskError, S3Error
from django_dualstorage.files import scratch_file
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, on_s3, put_object
from tests.support.proxy import FaultProxy, Status, Truncated


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if is_staged(path.name) or fnmatch(path.name, "?*.dualstorage")]


@pytest.mark.parametrize("mode", ["ab", "a", "r+b", "a+"])
def test_nothing_is_appended_to_a_file_that_s3_may_have(
    make_proxied: MakeStorage, proxy: FaultProxy, media_root: Path, mode: str
) -> None:
    """Appending to nothing would make a new file, and that would replace the one on S3."""
    storage = make_proxied("dual")
    put_object(storage, "a.txt", b"only there")
    rule = proxy.fail(Status(503), times=None)
    with pytest.raises(NotOnDiskError):
        storage.open("a.txt", mode)
    assert rule.hits
    assert leftovers(media_root) == []
    proxy.clear_faults()
    with storage.open("a.txt", "ab") as file:
        file.write(b", and more")
    assert {version.content for version in on_s3(storage).values()} == {b"only there, and more"}
    assert_sides_equal(storage)


def test_a_beginning_that_cannot_be_read_leaves_nothing(
    make_proxied: MakeStorage, proxy: FaultProxy, tmp_path: Path, settings: Any
) -> None:
    (tmp_path / "uploads").mkdir()
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")
    storage = make_proxied("s3")
    name = storage.save("a.bin", ContentFile(os.urandom(200_000)))
    proxy.fail(Truncated(), method="GET", times=None)
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(S3Error):
        storage.open(name, "ab")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= fds
    assert leftovers(tmp_path / "uploads") == []


@pytest.mark.parametrize("phase", ["dual-strict", "s3-primary", "s3"])
def test_a_file_that_cannot_be_saved_leaves_the_old_version(
    make_proxied: MakeStorage, proxy: FaultProxy, media_root: Path, tmp_path: Path, settings: Any, phase: str
) -> None:
    (tmp_path / "uploads").mkdir()
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")
    storage = make_proxied(phase)
    name = storage.save("a.txt", ContentFile(b"old"))
    file = storage.open(name, "wb")
    file.write(b"new")
    proxy.fail(Status(503), method="PUT")
    with pytest.raises(S3Error):
        file.close()
    file.close()  # it is closed, and there is nothing more to save
    assert file.closed
    assert leftovers(media_root) == leftovers(tmp_path / "uploads") == []
    with storage.open(name) as again:
        assert again.read() == b"old"


@pytest.mark.parametrize("phase", ["filesystem", "dual", "s3"])
def test_a_file_that_is_forgotten_unclosed_is_saved(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    file = storage.open("a.txt", "wb")
    file.write(b"forgotten")
    assert not storage.exists("a.txt")
    del file
    gc.collect()
    with storage.open("a.txt") as found:
        assert found.read() == b"forgotten"


def test_nobody_sees_a_file_before_it_is_closed(make_storage: MakeStorage, media_root: Path) -> None:
    storage = make_storage("dual")
    storage.save("a.txt", ContentFile(b"old"))
    with storage.open("a.txt", "r+b") as file:
        file.write(b"new and longer")
        file.flush()
        with storage.open("a.txt") as other:
            assert other.read() == b"old"
        assert storage.listdir("") == ([], ["a.txt"])
    with storage.open("a.txt") as other:
        assert other.read() == b"new and longer"
    assert_sides_equal(storage)


def test_a_mode_that_python_does_not_know_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode"):
        scratch_file(str(tmp_path), "scratch", "w?", None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("phase", ["filesystem", "dual", "s3-primary", "s3"])
def test_a_name_that_s3_cannot_take(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    name = "tab\there.txt"
    assert not storage.exists(name)
    for ask in (storage.open, storage.size, storage.get_modified_time):
        with pytest.raises(FileNotFoundError):
            ask(name)
    storage.delete(name)


def test_a_name_that_s3_cannot_take_is_still_a_file_of_the_disk(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    name = storage.save("tab\there.txt", ContentFile(b"x"))
    with storage.open(name) as file:
        assert file.read() == b"x"
    assert storage.exists(name)
    assert storage.url(name) == "/media/tab%09here.txt"
    storage.delete(name)
    assert not storage.exists(name)


def test_a_folder_cannot_be_opened(make_storage: MakeStorage) -> None:
    for phase in ("filesystem", "dual"):
        storage = make_storage(phase)
        storage.save("folder/a.txt", ContentFile(b"x"))
        with pytest.raises(IsADirectoryError):
            storage.open("folder")


def test_a_listing_goes_on_without_s3(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = make_proxied("dual")
    storage.save("folder/a.txt", ContentFile(b"x"))
    put_object(storage, "folder/b.txt", b"x")
    assert sorted(storage.listdir("folder")[1]) == ["a.txt", "b.txt"]
    proxy.fail(Status(503), times=None)
    assert storage.listdir("folder") == ([], ["a.txt"])
    with pytest.raises(FileNotFoundError):
        storage.listdir("elsewhere")
    assert not storage.exists("folder/b.txt")
    assert storage.pair.counters["read.unknown"]


def test_there_are_no_paths_where_s3_is_the_truth(make_storage: MakeStorage) -> None:
    for phase in ("s3-primary", "s3"):
        with pytest.raises(NotImplementedError, match=r"Use open\(\)"):
            make_storage(phase).path("a.txt")
