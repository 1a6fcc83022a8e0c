"""What sites do to the disk around the storage, and what they expect of a FileSystemStorage."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.core.files.storage.handler import StorageHandler
from django.core.files.uploadedfile import TemporaryUploadedFile
from django.test import override_settings

from django_dualstorage.sides.s3 import S3Side
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, on_s3, put_object

LOCAL_TRUTH = ("filesystem", "mirror", "dual", "dual-strict")
ALL = (*LOCAL_TRUTH, "s3-primary", "s3")


def content_of(storage: DualWriteStorage, name: str) -> bytes:
    with storage.open(name) as file:
        data: bytes = file.read()
        return data


def test_it_is_a_file_system_storage_that_needs_no_arguments(tmp_path: Path) -> None:
    with override_settings(MEDIA_ROOT=str(tmp_path), DUALSTORAGE_PHASE="filesystem"):
        storage = DualWriteStorage()
        assert isinstance(storage, FileSystemStorage)
        assert storage.location == str(tmp_path)
        assert storage.base_url == "/media/"
        name = storage.save("a.txt", ContentFile(b"x"))
        assert (tmp_path / name).read_bytes() == b"x"
        assert not (tmp_path / ".dualstorage").exists()


def test_building_one_touches_nothing(tmp_path: Path) -> None:
    DualWriteStorage(tmp_path / "not-there", s3={"bucket_name": "b", "endpoint_url": "http://127.0.0.1:1"})
    assert list(tmp_path.iterdir()) == []


# -- behind the storage's back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", LOCAL_TRUTH)
def test_a_file_removed_behind_it_is_gone(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    name = storage.save("a.txt", ContentFile(b"x"))
    os.remove(storage.path(name))
    storage.delete(name)
    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)
    assert on_s3(storage) == {}


@pytest.mark.parametrize("phase", LOCAL_TRUTH)
def test_a_file_written_behind_it_is_seen_at_once(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    name = storage.save("a.txt", ContentFile(b"old"))
    for data in (b"new", b"changed", b""):
        with storage.open(name) as file:
            file.read(1)
            with open(str(file.name), "wb") as behind:
                behind.write(data)
        assert content_of(storage, name) == data
        assert storage.size(name) == len(data)


@pytest.mark.parametrize("phase", LOCAL_TRUTH)
def test_a_file_put_there_behind_it_is_readable(make_storage: MakeStorage, media_root: Path, phase: str) -> None:
    storage = make_storage(phase)
    (media_root / "a.txt").write_bytes(b"x")
    assert content_of(storage, "a.txt") == b"x"
    assert storage.save("a.txt", ContentFile(b"y")) != "a.txt"


# -- overwriting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ALL)
def test_overwriting_is_allowed_where_configured(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase, allow_overwrite=True)
    for data in (b"one", b"two", b"three"):
        assert storage.save("a.txt", ContentFile(data)) == "a.txt"
        assert content_of(storage, "a.txt") == data
    # Asked directly, on every version of Django.
    assert storage.get_available_name("a.txt") == "a.txt"
    assert storage.exists("a.txt")
    if storage.policy.writes_both:
        assert_sides_equal(storage)
    upload = TemporaryUploadedFile("a.txt", "text/plain", 8, None)
    upload.write(b"uploaded")
    upload.flush()
    assert storage.save("a.txt", upload) == "a.txt"
    assert content_of(storage, "a.txt") == b"uploaded"
    upload.close()


def test_overwriting_keeps_to_the_longest_length(make_storage: MakeStorage) -> None:
    storage = make_storage("filesystem", allow_overwrite=True)
    assert len(storage.save("abcdefgh.txt", ContentFile(b"x"), max_length=8)) == 8


# -- permissions -------------------------------------------------------------------------------------------------------


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("phase", LOCAL_TRUTH)
def test_permissions_are_those_configured(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase, file_permissions_mode=0o604, directory_permissions_mode=0o703)
    storage.save("a/b/c.txt", ContentFile(b"x"))
    with storage.open("d/e/f.txt", "w") as file:
        file.write("x")
    assert {mode(storage.path(name)) for name in ("a/b/c.txt", "d/e/f.txt")} == {0o604}
    assert {mode(storage.path(name)) for name in ("a", "a/b", "d", "d/e")} == {0o703}


def test_permissions_are_those_of_the_settings(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    storage.save("before.txt", ContentFile(b"x"))
    with override_settings(FILE_UPLOAD_PERMISSIONS=0o600, FILE_UPLOAD_DIRECTORY_PERMISSIONS=0o711):
        storage.save("new/during.txt", ContentFile(b"x"))
    storage.save("after.txt", ContentFile(b"x"))
    assert [mode(storage.path(f"{name}.txt")) for name in ("before", "new/during", "after")] == [0o644, 0o600, 0o644]
    assert mode(storage.path("new")) == 0o711


def test_nobody_else_may_look_into_the_journal(make_storage: MakeStorage, media_root: Path) -> None:
    before = os.umask(0)
    try:
        make_storage("dual").save("a.txt", ContentFile(b"x"))
    finally:
        os.umask(before)
    for path in [media_root / ".dualstorage", *(media_root / ".dualstorage").rglob("*")]:
        assert not mode(str(path)) & 0o077, path


# -- moving the storage ------------------------------------------------------------------------------------------------


def test_another_media_root_moves_it(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    with override_settings(MEDIA_ROOT=str(tmp_path / "one"), MEDIA_URL="/one/"):
        storage = DualWriteStorage(phase="dual", provider="seaweedfs", s3=s3_options)
        storage.save("a.txt", ContentFile(b"1"))
        assert storage.url("a.txt") == "/one/a.txt"
        with override_settings(MEDIA_ROOT=str(tmp_path / "two"), MEDIA_URL="/two/"):
            storage.save("b.txt", ContentFile(b"2"))
            assert storage.url("b.txt") == "/two/b.txt"
            assert storage.path("b.txt") == str(tmp_path / "two/b.txt")
        assert storage.path("a.txt") == str(tmp_path / "one/a.txt")
    assert (tmp_path / "two/b.txt").read_bytes() == b"2"
    assert (tmp_path / "two/.dualstorage").is_dir()


def test_another_location_moves_it(make_storage: MakeStorage, tmp_path: Path) -> None:
    for moved_to in (str(tmp_path / "moved"), tmp_path / "moved-again"):
        storage = make_storage("mirror")
        storage.save(f"{os.path.basename(moved_to)}-before.txt", ContentFile(b"1"))
        storage.location = moved_to
        name = storage.save("a.txt", ContentFile(b"2"))
        assert Path(moved_to, name).read_bytes() == b"2"


def test_another_phase_in_the_settings_counts_at_once(media_root: Path, s3_options: dict[str, Any]) -> None:
    with override_settings(DUALSTORAGE_PHASE="mirror"):
        storage = DualWriteStorage(media_root, provider="seaweedfs", s3=s3_options)
        assert storage.policy.phase.value == "mirror"
        with override_settings(DUALSTORAGE_PHASE="s3"):
            assert storage.policy.phase.value == "s3"
            storage.save("only-there.txt", ContentFile(b"x"))
        assert not storage.exists("only-there.txt")


def test_a_site_configures_it_in_storages(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    options = {"phase": "dual", "provider": "seaweedfs", "s3": s3_options}
    entry: Any = {"BACKEND": "django_dualstorage.storage.DualWriteStorage", "OPTIONS": options}
    with override_settings(MEDIA_ROOT=str(tmp_path)):
        storage = StorageHandler({"default": entry})["default"]
        assert isinstance(storage, DualWriteStorage)
        storage.save("a.txt", ContentFile(b"x"))
        assert content_of(storage, "a.txt") == b"x"
        assert on_s3(storage).keys() == {"a.txt"}


def test_the_same_tree_may_have_another_prefix(make_storage: MakeStorage, prefix: str) -> None:
    one, other = (make_storage("dual", s3={"location": f"{prefix}/{place}"}) for place in ("one", "other"))
    one.save("a.txt", ContentFile(b"1"))
    assert on_s3(other) == {}
    other.save("b.txt", ContentFile(b"2"))
    assert set(on_s3(one)) == {"a.txt"}
    assert set(on_s3(other)) == {"b.txt"}
    assert content_of(other, "a.txt") == b"1"  # from the disk they share


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", LOCAL_TRUTH)
def test_absolute_names_inside_the_location_are_names(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    storage.save("a/b.txt", ContentFile(b"x"))
    absolute = storage.path("a/b.txt")
    assert content_of(storage, absolute) == b"x"
    assert storage.exists(absolute)
    assert storage.size(absolute) == 1
    assert storage.listdir(str(storage.location))[0] == ["a"]
    assert storage.listdir(storage.path("a")) == ([], ["b.txt"])
    assert storage.get_modified_time(absolute) == storage.get_modified_time("a/b.txt")
    with storage.open(absolute, "ab") as file:
        file.write(b"y")
    assert content_of(storage, "a/b.txt") == b"xy"
    storage.delete(absolute)
    assert not storage.exists("a/b.txt")


@pytest.mark.parametrize("phase", ALL)
def test_names_may_be_paths(make_storage: MakeStorage, phase: str) -> None:
    storage: Any = make_storage(phase)
    storage.save(Path("a/b.txt"), ContentFile(b"x"))
    assert content_of(storage, Path("a/b.txt")) == b"x"  # type: ignore[arg-type]
    assert storage.exists(Path("a/b.txt"))
    assert storage.url(Path("a/b.txt"))
    storage.delete(Path("a/b.txt"))
    assert not storage.exists("a/b.txt")


def test_a_name_that_only_s3_has_is_not_available_in_dual(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    put_object(storage, "a.txt", b"only there")
    assert storage.get_available_name("a.txt") != "a.txt"
    assert make_storage("mirror").get_available_name("a.txt") == "a.txt"
    assert storage.listdir("") == ([], ["a.txt"])
    assert content_of(storage, "a.txt") == b"only there"


def test_a_file_object_of_the_disk_is_content(make_storage: MakeStorage, tmp_path: Path) -> None:
    (tmp_path / "source.txt").write_bytes(b"x" * 1000)
    storage = make_storage("dual")
    with open(tmp_path / "source.txt", "rb") as source:
        name = storage.save(None, File(source, name="named.txt"))
    assert (name, storage.size(name)) == ("named.txt", 1000)
    assert isinstance(storage.pair.s3, S3Side)
