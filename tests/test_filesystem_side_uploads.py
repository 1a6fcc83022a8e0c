"""The filesystem side: uploads that lie in a file, and the permissions that files and folders get."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from django_dualstorage.core.names import is_staged
from django_dualstorage.sides.filesystem import Content, FilesystemSide
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


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    path = tmp_path / "upload"
    path.write_bytes(b"uploaded")
    return path


def test_an_upload_is_moved(side: FilesystemSide, root: Path, upload: Path) -> None:
    inode = upload.stat().st_ino
    with side.stage("a/b.txt", OP, Content((), str(upload))) as staged:
        staged.create()
    assert (root / "a/b.txt").stat().st_ino == inode
    assert not upload.exists()


def test_an_upload_that_is_discarded_goes_back(side: FilesystemSide, root: Path, upload: Path) -> None:
    with side.stage("a.txt", OP, Content((), str(upload))):
        assert not upload.exists()
    assert upload.read_bytes() == b"uploaded"
    assert list(root.iterdir()) == []


def exdev(monkeypatch: pytest.MonkeyPatch, upload: Path) -> None:
    rename = os.rename

    def other_disk(source: Any, target: Any) -> None:
        if os.fspath(source) == str(upload):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(os, "rename", other_disk)


def test_an_upload_on_another_disk_is_copied(
    side: FilesystemSide, root: Path, upload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exdev(monkeypatch, upload)
    with side.stage("a.txt", OP, Content((), str(upload))) as staged:
        staged.create()
    assert (root / "a.txt").read_bytes() == b"uploaded"
    assert not upload.exists()


def test_a_copy_that_fails_leaves_the_upload_and_nothing_else(
    side: FilesystemSide, root: Path, upload: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exdev(monkeypatch, upload)

    def fill() -> None:
        limit_files(4)
        with pytest.raises(OSError, match="large"):
            side.stage("a.txt", OP, Content((), str(upload)))

    run_in_child(fill).unwrap()
    assert upload.read_bytes() == b"uploaded"
    assert list(root.iterdir()) == []


def test_an_upload_that_cannot_be_moved_is_an_error(side: FilesystemSide, root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        side.stage("a.txt", OP, Content((), str(tmp_path / "gone")))
    assert list(root.iterdir()) == []


# -- permissions and flushing ------------------------------------------------------------------------------------------


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_and_folders_get_their_permissions_whatever_the_umask(root: Path, upload: Path) -> None:
    side = FilesystemSide(str(root), file_mode=0o640, folder_mode=0o2775)
    before = os.umask(0o077)
    try:
        commit(side, "a/b/c.txt")
        with side.stage("a/up.txt", OTHER, Content((), str(upload))) as staged:
            staged.create()
    finally:
        os.umask(before)
    assert [mode(root / name) for name in ("a", "a/b", "a/b/c.txt", "a/up.txt")] == [0o2775, 0o2775, 0o640, 0o640]


def test_without_permissions_configured_the_umask_decides(root: Path) -> None:
    before = os.umask(0o027)
    try:
        commit(FilesystemSide(str(root)), "a/b.txt")
    finally:
        os.umask(before)
    assert [mode(root / name) for name in ("a", "a/b.txt")] == [0o750, 0o640]


def test_folders_that_are_there_keep_theirs(root: Path) -> None:
    (root / "a").mkdir(0o711)
    commit(FilesystemSide(str(root), folder_mode=0o755), "a/b.txt")
    assert mode(root / "a") == 0o711


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder to a group of its choice")
def test_files_belong_to_the_group_of_the_root(side: FilesystemSide, root: Path) -> None:
    os.chown(root, -1, 4242)
    commit(side, "a.txt")
    assert (root / "a.txt").stat().st_gid == 4242


def test_a_group_one_is_not_in_is_left_at_that(
    side: FilesystemSide, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_somebody() -> int:
        os.setgid(65534)
        os.setuid(65534)
        commit(side, "a.txt")
        return (root / "a.txt").stat().st_gid

    if os.geteuid() == 0:
        for folder in (root, *list(root.parents)[:-2]):
            os.chmod(folder, 0o777)
        os.chown(root, -1, 4242)
        assert run_in_child(as_somebody).unwrap() == 65534
    else:
        monkeypatch.setattr(os, "fchown", lambda *args: (_ for _ in ()).throw(PermissionError))
        commit(side, "a.txt")


def test_files_and_folders_are_flushed_where_configured(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    fsync = os.fsync

    def noting(fd: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(fd).st_mode))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", noting)
    side = FilesystemSide(str(root), fsync=True)
    commit(side, "a.txt")
    assert flushed == [False, True]
    commit(side, "a.txt", replace=True)
    assert flushed == [False, True] * 2
    side.unlink("a.txt")
    assert flushed == [False, True, False, True, True]
    commit(FilesystemSide(str(root)), "b.txt")
    assert len(flushed) == 5
