"""The filesystem side: what may be copied to S3, and what must not even be opened."""

from __future__ import annotations

import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from django_dualstorage.core.names import is_staged
from django_dualstorage.exceptions import UnmovableError
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
