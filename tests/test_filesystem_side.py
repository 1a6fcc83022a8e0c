"""The filesystem side: complete files appear under their name in one step, or not at all."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from django_dualstorage.core.names import is_staged
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.exceptions import NameTakenError
from django_dualstorage.sides.filesystem import Content, FilesystemSide, write_all
from tests.support.fork import run_in_child

OP, OTHER = "1" * 32, "2" * 32


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def side(root: Path) -> FilesystemSide:
    return FilesystemSide(str(root))


def limit_files(size: int) -> None:
    """In a child: files beyond ``size`` bytes are refused, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def commit(side: FilesystemSide, name: str, data: bytes = b"new", *, replace: bool = False) -> None:
    with side.stage(name, OP, Content([data])) as staged:
        staged.stamp(None)
        staged.replace() if replace else staged.create()


def staged_files(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if is_staged(path.name)]


# -- commits -----------------------------------------------------------------------------------------------------------


def test_nothing_is_seen_before_the_commit(side: FilesystemSide, root: Path) -> None:
    with side.stage("a/b.txt", OP, Content([b"one", "zwö"])) as staged:
        assert not side.exists("a/b.txt")
        assert staged.source.read_all() == b"one" + "zwö".encode()
        stamp = staged.stamp(None)
        staged.create()
    assert (root / "a/b.txt").read_bytes() == b"one" + "zwö".encode()
    assert side.version("a/b.txt") == stamp
    assert staged_files(root) == []


def test_create_refuses_an_existing_name(side: FilesystemSide, root: Path) -> None:
    (root / "a.txt").write_bytes(b"old")
    with pytest.raises(NameTakenError, match="exists already"):
        commit(side, "a.txt")
    assert (root / "a.txt").read_bytes() == b"old"
    assert staged_files(root) == []


@pytest.mark.parametrize("kind", ["broken link", "folder"])
def test_create_refuses_whatever_has_the_name(side: FilesystemSide, root: Path, kind: str) -> None:
    (root / "a.txt").symlink_to("nowhere") if kind == "broken link" else (root / "a.txt").mkdir()
    assert side.exists("a.txt")
    assert side.version("a.txt") is None
    with pytest.raises(NameTakenError):
        commit(side, "a.txt")


def test_replace_takes_the_place_of_the_old_version(side: FilesystemSide, root: Path) -> None:
    (root / "a.txt").write_bytes(b"old")
    with open(root / "a.txt", "rb") as before:
        commit(side, "a.txt", replace=True)
        assert before.read() == b"old"
    assert (root / "a.txt").read_bytes() == b"new"


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_without_hard_links_create_still_refuses_an_existing_name(
    side: FilesystemSide, root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    commit(side, "a.txt", b"first")
    with pytest.raises(NameTakenError):
        commit(side, "a.txt", b"second")
    assert (root / "a.txt").read_bytes() == b"first"
    assert staged_files(root) == []


def test_any_other_error_of_a_link_is_an_error(
    side: FilesystemSide, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="Input/output"):
        commit(side, "a.txt")
    assert list(root.iterdir()) == []


def test_versions_that_replace_each_other_are_later_each(side: FilesystemSide) -> None:
    versions = []
    for number in range(20):
        with side.stage("a.txt", OP, Content([b"%d" % number])) as staged:
            versions.append(staged.stamp(side.version("a.txt")))
            staged.replace()
        assert side.version("a.txt") == versions[-1]
    times = [version.mtime_ns for version in versions]
    assert times == sorted(set(times))


def test_a_time_that_is_known_is_kept(side: FilesystemSide) -> None:
    with side.stage("a.txt", OP, Content([b"abc"])) as staged:
        staged.keep_mtime(1_234_567_891_123_456_789)
        staged.create()
    assert side.version("a.txt") == Stamp(3, 1_234_567_891_123_456_789)


def test_another_name_is_gone_to_without_writing_again(side: FilesystemSide, root: Path) -> None:
    with side.stage("a.txt", OP, Content(iter([b"once"]))) as staged:
        staged.move_to("deeper/b.txt", OTHER)
        staged.create()
    assert (root / "deeper/b.txt").read_bytes() == b"once"
    assert not side.exists("a.txt")


# -- what goes wrong on the way ----------------------------------------------------------------------------------------


def test_content_that_breaks_off_leaves_nothing(side: FilesystemSide, root: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("client went away")

    with pytest.raises(RuntimeError):
        side.stage("a/b.txt", OP, Content(broken()))
    assert staged_files(root) == []


def test_a_full_disk_leaves_nothing(side: FilesystemSide, root: Path) -> None:
    def fill() -> None:
        limit_files(1000)
        with pytest.raises(OSError, match="large"):
            side.stage("a.txt", OP, Content([b"x" * 600, b"y" * 600]))

    run_in_child(fill).unwrap()
    assert list(root.iterdir()) == []


def test_a_short_write_is_continued() -> None:
    reader, writer = os.pipe()
    data = bytes(range(256)) * 4096  # more than a pipe takes at once
    with open(reader, "rb") as stream, ThreadPoolExecutor(1) as pool:
        found = pool.submit(stream.read)
        os.set_blocking(writer, True)
        write_all(writer, memoryview(data))
        os.close(writer)
        assert found.result() == data


def test_a_file_where_a_folder_should_be_is_an_error(side: FilesystemSide, root: Path) -> None:
    (root / "a").write_bytes(b"")
    with pytest.raises(FileExistsError, match="not a directory"):
        side.stage("a/b.txt", OP, Content([b"x"]))
    assert not side.exists("a/b.txt")
    assert side.version("a/b.txt") is None
    side.unlink("a/b.txt")
    side.remove_staged("a/b.txt", OP)


def test_permissions_that_cannot_be_given_leave_nothing(
    side: FilesystemSide, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(OSError, match="Input/output"):
        FilesystemSide(str(root), file_mode=0o644).stage("a.txt", OP, Content([b"x"]))
    assert list(root.iterdir()) == []


# -- removal -----------------------------------------------------------------------------------------------------------


def test_unlink_removes_files_links_and_empty_folders(side: FilesystemSide, root: Path) -> None:
    (root / "file").touch()
    (root / "folder").mkdir()
    (root / "full").mkdir()
    (root / "full/file").touch()
    (root / "link").symlink_to("full")
    for name in ("file", "folder", "link", "never"):
        side.unlink(name)
    assert sorted(path.name for path in root.iterdir()) == ["full"]
    with pytest.raises(OSError, match="not empty"):
        side.unlink("full")


def test_what_a_killed_operation_staged_is_removed(side: FilesystemSide, root: Path) -> None:
    side.stage("a/b.txt", OP, Content([b"x"]))
    assert staged_files(root)
    side.remove_staged("a/b.txt", OTHER)
    assert staged_files(root)
    side.remove_staged("a/b.txt", OP)
    side.remove_staged("a/b.txt", OP)
    assert staged_files(root) == []
