"""What every storage of Django's does, ours in every phase: save, open, ask, list, delete."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import SuspiciousFileOperation, SuspiciousOperation
from django.core.files.base import ContentFile

from tests.conformance.subjects import ABSENCE, FOLDERS, NAMELESS, PATHS, Subject, content_of, having


def put(storage: Any, name: str, content: bytes = b"content") -> str:
    saved: str = storage.save(name, ContentFile(content))
    return saved


def test_what_was_saved_is_read(storage: Any, box: str) -> None:
    assert put(storage, f"{box}/a.txt", b"some bytes") == f"{box}/a.txt"
    with storage.open(f"{box}/a.txt") as file:
        assert file.read() == b"some bytes"
    assert storage.exists(f"{box}/a.txt")
    assert storage.size(f"{box}/a.txt") == 10


def test_content_that_has_a_name_needs_no_other(storage: Any, box: str) -> None:
    assert storage.save(None, ContentFile(b"x", name=f"{box}/own.txt")) == f"{box}/own.txt"


def test_a_deleted_file_is_gone(storage: Any, box: str) -> None:
    name = put(storage, f"{box}/a.txt")
    storage.delete(name)
    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)
    with pytest.raises(FileNotFoundError):
        storage.size(name)


def test_deleting_what_is_not_there_is_fine(storage: Any, box: str) -> None:
    storage.delete(f"{box}/never.txt")
    storage.delete(f"{box}/never/never.txt")


@pytest.mark.parametrize("subject", having(NAMELESS), indirect=True, ids=str)
def test_deleting_needs_a_name(storage: Any) -> None:
    with pytest.raises(ValueError, match="name must be given"):
        storage.delete("")


def test_a_name_can_be_used_again_after_a_delete(storage: Any, box: str) -> None:
    name = put(storage, f"{box}/a.txt", b"first")
    storage.delete(name)
    assert put(storage, name, b"second") == name
    assert content_of(storage, name) == b"second"


def test_a_missing_file_does_not_exist(storage: Any, box: str) -> None:
    assert not storage.exists(f"{box}/never.txt")
    with pytest.raises(FileNotFoundError):
        storage.open(f"{box}/never.txt")
    with pytest.raises(FileNotFoundError):
        storage.size(f"{box}/never.txt")


@pytest.mark.parametrize("subject", having(ABSENCE), indirect=True, ids=str)
def test_a_missing_file_has_no_times(storage: Any, box: str) -> None:
    for ask in (storage.get_modified_time, storage.get_created_time, storage.get_accessed_time):
        with pytest.raises(FileNotFoundError):
            ask(f"{box}/never.txt")


def test_folders_and_files_are_listed(storage: Any, box: str) -> None:
    for name in ("a.txt", "b.txt", "sub/c.txt", "sub/deeper/d.txt"):
        put(storage, f"{box}/{name}")
    folders, files = storage.listdir(box)
    assert (sorted(folders), sorted(files)) == (["sub"], ["a.txt", "b.txt"])
    folders, files = storage.listdir(f"{box}/sub/")
    assert (folders, files) == (["deeper"], ["c.txt"])
    assert box in storage.listdir("")[0]


@pytest.mark.parametrize("subject", having(FOLDERS), indirect=True, ids=str)
def test_a_missing_folder_cannot_be_listed(storage: Any, box: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.listdir(box)


@pytest.mark.parametrize("subject", having(PATHS, FOLDERS), indirect=True, ids=str)
def test_an_empty_folder_can_be_deleted_and_a_full_one_not(storage: Any, box: str) -> None:
    name = put(storage, f"{box}/a.txt")
    with pytest.raises(OSError, match="not empty"):
        storage.delete(box)
    storage.delete(name)
    assert storage.exists(box)
    storage.delete(box)
    assert not storage.exists(box)


def test_a_taken_name_gives_another_and_both_files_stand(storage: Any, box: str) -> None:
    names = [put(storage, f"{box}/a.tar.gz", content) for content in (b"one", b"two", b"three")]
    assert len(set(names)) == 3
    assert all(name.startswith(f"{box}/a") and name.endswith(".gz") for name in names)
    assert [content_of(storage, name) for name in names] == [b"one", b"two", b"three"]


def test_the_other_name_keeps_to_the_longest_length(storage: Any, box: str) -> None:
    name = f"{box}/{'n' * 20}.txt"
    first = storage.save(name, ContentFile(b"1"), max_length=len(name))
    second = storage.save(name, ContentFile(b"2"), max_length=len(name))
    assert first == name
    assert second != name
    assert len(second) <= len(name)
    shorter = storage.save(name, ContentFile(b"3"), max_length=len(name) - 5)
    assert len(shorter) <= len(name) - 5
    with pytest.raises(SuspiciousFileOperation):
        storage.save(name, ContentFile(b"4"), max_length=len(box) + 2)


def test_get_available_name_tells_free_from_taken(storage: Any, box: str) -> None:
    name = f"{box}/a.txt"
    assert storage.get_available_name(name) == name
    put(storage, name)
    other = storage.get_available_name(name, max_length=len(name) + 8)
    assert other != name
    assert not storage.exists(other)


def test_names_are_made_valid_as_django_does(storage: Any) -> None:
    assert storage.get_valid_name("  some name (1).txt") == "some_name_1.txt"
    assert storage.generate_filename("uploads/some name.txt") == "uploads/some_name.txt"
    with pytest.raises(SuspiciousFileOperation):
        storage.generate_filename("../outside.txt")


@pytest.mark.parametrize("name", ["../outside.txt", "a/../../outside.txt", "/etc/passwd"])
def test_names_outside_are_refused(storage: Any, subject: Subject, name: str) -> None:
    if name.startswith("/") and subject.name == "memory":
        pytest.skip("its files are nowhere, so nothing is outside")
    for use in (storage.open, storage.exists, storage.size, storage.delete, storage.listdir, storage.get_modified_time):
        with pytest.raises(SuspiciousOperation):
            use(name)
    with pytest.raises(SuspiciousOperation):
        put(storage, name)


NAMES = [
    "with space.txt",
    "plus+and&and=.txt",
    "percent%41 hash# question?.txt",
    "tilde~ quote' double\" semi; (1).txt",
    "ünïcödé-名前-🎈.txt",
    "Cafe\u0301.txt",  # decomposed
    "Caf\u00e9.txt",  # composed
    ".hidden",
    "no-suffix",
    "x" * 150 + ".txt",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_a_disk_takes_comes_back(storage: Any, box: str, name: str) -> None:
    saved = put(storage, f"{box}/{name}", name.encode())
    assert saved == f"{box}/{name}"
    assert storage.listdir(box) == ([], [name])
    assert content_of(storage, saved) == name.encode()
    assert storage.size(saved) == len(name.encode())
    storage.delete(saved)
    assert not storage.exists(saved)


def test_names_are_never_normalised(storage: Any, box: str) -> None:
    composed, decomposed = put(storage, f"{box}/Caf\u00e9.txt", b"1"), put(storage, f"{box}/Cafe\u0301.txt", b"2")
    assert content_of(storage, composed) == b"1"
    assert content_of(storage, decomposed) == b"2"
    assert len(storage.listdir(box)[1]) == 2


def test_a_key_may_begin_another(storage: Any, box: str) -> None:
    """The order of a listing is not that of a folder: ``a-b`` lies between ``a`` and ``a/b``."""
    for name in ("a/b.txt", "a-b.txt", "a.txt"):
        put(storage, f"{box}/{name}", name.encode())
    assert [content_of(storage, f"{box}/{name}") for name in ("a/b.txt", "a-b.txt")] == [b"a/b.txt", b"a-b.txt"]
    folders, files = storage.listdir(box)
    assert (folders, sorted(files)) == (["a"], ["a-b.txt", "a.txt"])


@pytest.mark.parametrize("subject", having(NAMELESS), indirect=True, ids=str)
def test_the_whole_storage_can_be_asked_for(storage: Any, box: str) -> None:
    put(storage, f"{box}/a.txt")
    assert storage.url("")
    assert storage.exists("")
    assert storage.size("") >= 0


def test_a_url_names_the_file(storage: Any, box: str) -> None:
    name = put(storage, f"{box}/a b.txt")
    assert f"{box}/a%20b.txt" in storage.url(name)
