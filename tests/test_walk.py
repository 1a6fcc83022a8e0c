"""The walk over MEDIA_ROOT: names and problems, whatever happens to the tree meanwhile."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core.names import staged_name
from django_dualstorage.core.report import FileResult
from django_dualstorage.sides import walk as module
from django_dualstorage.sides.filesystem import Content, FilesystemSide
from django_dualstorage.sides.walk import walk
from tests.conftest import MakeStorage


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def names(root: Path, prefix: str = "") -> list[str]:
    found = list(walk(str(root), prefix))
    assert not [one for one in found if isinstance(one, FileResult)]
    return sorted(str(one) for one in found)


def test_every_file_and_nothing_of_ours(media_root: Path) -> None:
    make(media_root, "a", "b/c", "b/d/e", ".hidden", ".dualstorage/key", f"b/{staged_name('1')}", "b/.dualstorage/file")
    (media_root / "empty").mkdir()
    assert names(media_root) == [".hidden", "a", "b/.dualstorage/file", "b/c", "b/d/e"]


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a", ["a-b/c", "a/b", "a/c/d", "ab"]),
        ("a/", ["a/b", "a/c/d"]),
        ("a/b", ["a/b"]),
        ("a/c/d", ["a/c/d"]),
        ("a-", ["a-b/c"]),
        ("x", []),
        ("x/y", []),
        ("ab/c", []),
    ],
)
def test_prefix(media_root: Path, prefix: str, expected: list[str]) -> None:
    make(media_root, "ab", "a-b/c", "b/a", "a/b", "a/c/d")
    assert names(media_root, prefix) == expected


def test_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mounted"):
        list(walk(str(tmp_path / "nowhere")))


def test_folder_that_vanishes_or_becomes_a_file(media_root: Path) -> None:
    make(media_root, "a/1", "b/1", "c/1")
    found: list[object] = []
    for one in walk(str(media_root)):
        if not found:
            for name in "abc":
                if one != f"{name}/1":
                    shutil.rmtree(media_root / name)
                    if name != "b":
                        (media_root / name).write_bytes(b"a file now")
        found.append(one)
    assert len(found) == 1


def test_forgotten_file_of_a_killed_process_is_swept(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = media_root / staged_name("0123")
    staged.write_bytes(b"half")
    (media_root / staged_name("folder")).mkdir()
    (media_root / staged_name("link")).symlink_to(staged)
    assert names(media_root) == []
    assert staged.exists()  # it is young
    monkeypatch.setattr(module, "_FORGOTTEN_AFTER", -1.0)
    with open(staged, "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert names(media_root) == []
        assert staged.exists()  # somebody has it open
    assert names(media_root) == []
    assert not staged.exists()
    assert len(os.listdir(media_root)) == 2


def test_slow_save_keeps_its_file_however_long_it_takes(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload of hours to S3 leaves the staged file as old as one that was forgotten."""
    monkeypatch.setattr(module, "_FORGOTTEN_AFTER", -1.0)
    upload = media_root.parent / "upload"
    upload.write_bytes(b"content")
    side = FilesystemSide(str(media_root))
    for number, content in enumerate((Content([b"content"]), Content((), str(upload)))):
        with side.stage(f"{number}.txt", f"op{number}", content) as staged:
            assert names(media_root) == [f"{done}.txt" for done in range(number)]
            staged.create()
    assert names(media_root) == ["0.txt", "1.txt"]


def test_file_opened_for_writing_is_kept(make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FORGOTTEN_AFTER", -1.0)
    storage = make_storage("filesystem")
    storage.save("a.txt", ContentFile(b"old"))
    with storage.open("a.txt", "ab") as file:
        file.write(b" and new")
        assert names(Path(storage.location)) == ["a.txt"]
    with storage.open("a.txt") as file:
        assert file.read() == b"old and new"


def test_staged_file_that_is_committed_while_it_is_looked_at(media_root: Path) -> None:
    module._sweep(str(media_root / staged_name("gone")))
