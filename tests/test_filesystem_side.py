"""The filesystem side: complete files appear under their name in one step, and nothing strange is opened."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from django_dualstorage.core.names import is_staged
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.exceptions import NameTakenError, UnmovableError
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


# -- uploads that lie in a file ----------------------------------------------------------------------------------------


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


# -- what may be copied to S3 ------------------------------------------------------------------------------------------


def test_a_file_is_opened_with_its_version(side: FilesystemSide, root: Path) -> None:
    (root / "a.txt").write_bytes(b"abc")
    for opened in (side.open_movable("a.txt"), side.open("a.txt")):
        file, version = opened
        with file:
            assert file.read() == b"abc"
        assert version == side.version("a.txt")


def test_a_link_that_stays_inside_is_followed(side: FilesystemSide, root: Path) -> None:
    (root / "a.txt").write_bytes(b"abc")
    (root / "link").symlink_to("a.txt")
    with side.open_movable("link")[0] as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize("through", ["link", "folder/secret", "hop"])
def test_a_link_that_leads_outside_is_not_opened(
    side: FilesystemSide, root: Path, tmp_path: Path, through: str
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    (tmp_path / "root-beside").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "outside/secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "hop").symlink_to(tmp_path / "root-beside")
    with pytest.raises(UnmovableError, match="outside MEDIA_ROOT") as failure:
        side.open_movable(through)
    assert failure.value.reason == "symlink"


def test_a_root_that_is_itself_a_link_is_fine(root: Path, tmp_path: Path) -> None:
    (root / "a.txt").write_bytes(b"abc")
    (root / "in").symlink_to("a.txt")
    (tmp_path / "alias").symlink_to(root)
    side = FilesystemSide(str(tmp_path / "alias"))
    for name in ("a.txt", "in"):
        with side.open_movable(name)[0] as file:
            assert file.read() == b"abc"


def strange(root: Path, kind: str) -> None:
    path = root / "strange"
    if kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to("strange")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            before = os.getcwd()
            os.chdir(root)  # the path of a socket may be short only
            try:
                server.bind("strange")
            finally:
                os.chdir(before)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("broken link", "symlink"),
        ("loop", "symlink"),
        ("pipe", "special"),
        ("socket", "special"),
        ("folder", "special"),
    ],
)
def test_what_is_no_file_is_not_opened_and_nothing_hangs(
    side: FilesystemSide, root: Path, kind: str, reason: str
) -> None:
    strange(root, kind)
    with pytest.raises(UnmovableError) as failure:
        side.open_movable("strange")
    assert failure.value.reason == reason


def test_what_may_not_be_read_says_so(side: FilesystemSide, root: Path) -> None:
    (root / "a.txt").write_bytes(b"abc")
    (root / "a.txt").chmod(0)

    def as_somebody() -> str:
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            side.open_movable("a.txt")
        except UnmovableError as error:
            return error.reason
        return "opened"

    for folder in (root, *list(root.parents)[:-2]):
        if os.access(folder, os.W_OK) and folder.owner() == Path(root).owner():
            folder.chmod(folder.stat().st_mode | 0o755)
    assert run_in_child(as_somebody).unwrap() == "unreadable"


@pytest.mark.parametrize("name", ["never", "never/never", "file/never"])
def test_what_is_not_there_is_not_found(side: FilesystemSide, root: Path, name: str) -> None:
    (root / "file").touch()
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        side.open_movable(name)
    assert side.version(name) is None
