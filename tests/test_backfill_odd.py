"""What lies in a real MEDIA_ROOT besides files: each thing is named with its reason, and none stops a backfill."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from django_dualstorage.core.report import Outcome, Report
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import assert_sides_equal, ignore, never_stop, on_s3
from tests.support.fork import run_in_child
from tests.support.lab import Lab, seen
from tests.support.seaweed import SeaweedServer


@pytest.fixture(scope="module")
def lab(seaweed: SeaweedServer, seaweed_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(seaweed, seaweed_bucket, tmp_path_factory.mktemp("media"))
    probe(lab.storage("dual").pair)
    return lab


@pytest.fixture
def storage(lab: Lab) -> DualWriteStorage:
    return lab.storage("dual")


@pytest.fixture
def folder(lab: Lab) -> str:
    """A folder of this test alone, with one ordinary file in it."""
    folder = os.path.dirname(lab.name())
    os.makedirs(os.path.join(lab.root, folder))
    write(lab, f"{folder}/ordinary.txt")
    return folder


def write(lab: Lab, name: str, content: bytes = b"content") -> Path:
    path = Path(lab.root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    return path


def run(storage: DualWriteStorage, folder: str, *, dry_run: bool = False) -> Report:
    return Backfill(storage, prefix=f"{folder}/", workers=2, dry_run=dry_run).run(never_stop(), ignore)


def expect(storage: DualWriteStorage, folder: str, problems: dict[str, Outcome]) -> Report:
    """Run for show and in earnest: the same problems, and everything else is copied."""
    rehearsal = run(storage, folder, dry_run=True)
    report = run(storage, folder)
    assert {problem.name: problem.outcome for problem in report.problems} == problems
    assert all(problem.detail for problem in report.problems)
    assert rehearsal.counts == report.counts
    assert report.counts[Outcome.UPLOADED] >= 1
    assert f"{folder}/ordinary.txt" in on_s3(storage, f"{folder}/")
    assert not storage.pair.journal.count()
    return report


def test_link_out_of_the_tree_is_not_published(
    storage: DualWriteStorage, folder: str, lab: Lab, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"secret")
    os.utime(secret, ns=(1, 1))
    Path(lab.root, folder, "link.txt").symlink_to(secret)
    report = expect(storage, folder, {f"{folder}/link.txt": Outcome.SYMLINK})
    assert str(secret) in report.problems[0].detail
    assert seen(storage, f"{folder}/link.txt") == b"secret"  # FileSystemStorage follows it, so the disk goes on serving


def test_link_within_the_tree_is_a_file_of_its_own(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    Path(lab.root, folder, "link.txt").symlink_to("ordinary.txt")
    expect(storage, folder, {})
    assert on_s3(storage, folder)[f"{folder}/link.txt"].content == b"content"
    assert run(storage, folder).counts == {Outcome.CERTIFIED: 2}


def test_links_that_lead_nowhere(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    Path(lab.root, folder, "broken.txt").symlink_to("nothing.txt")
    Path(lab.root, folder, "loop.txt").symlink_to("loop.txt")
    expect(storage, folder, {f"{folder}/broken.txt": Outcome.SYMLINK, f"{folder}/loop.txt": Outcome.SYMLINK})


def test_link_to_a_folder_is_not_followed(storage: DualWriteStorage, folder: str, lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private/secret.txt").write_bytes(b"secret")
    Path(lab.root, folder, "outside").symlink_to(tmp_path / "private")
    Path(lab.root, folder, "round").symlink_to("..")
    expect(storage, folder, {f"{folder}/outside": Outcome.SYMLINK, f"{folder}/round": Outcome.SYMLINK})


def test_pipe_and_socket_do_not_hang_it(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    os.mkfifo(os.path.join(lab.root, folder, "pipe"))
    Path(lab.root, folder, "link-to-pipe").symlink_to("pipe")
    before = os.getcwd()
    os.chdir(os.path.join(lab.root, folder))  # a socket's path is limited to 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("socket")
            Path("link-to-socket").symlink_to("socket")
            names = ("pipe", "socket", "link-to-pipe", "link-to-socket")
            expect(storage, folder, {f"{folder}/{name}": Outcome.SPECIAL for name in names})
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    "name",
    [
        "control\x01.txt",
        "delete\x7f.txt",
        "new\nline.txt",
        "back\\slash.txt",
        "not-xml\ufffe.txt",
        "/".join(["x" * 250] * 5),
    ],
    ids=["control", "delete", "newline", "backslash", "not-xml", "over-long"],
)
def test_name_that_s3_cannot_take(storage: DualWriteStorage, folder: str, lab: Lab, name: str) -> None:
    write(lab, f"{folder}/{name}")
    report = expect(storage, folder, {f"{folder}/{name}": Outcome.BAD_NAME})
    assert "rename" in report.problems[0].detail
    if "\\" not in name:  # Django takes it for a folder separator
        assert seen(storage, f"{folder}/{name}") == b"content"


def test_name_that_is_not_utf8(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    base = os.fsencode(lab.root) + b"/" + os.fsencode(folder)
    os.mkdir(base + b"/fold\xe9r")
    for name in (b"/na\xefve.txt", b"/fold\xe9r/a.txt"):
        with open(base + name, "wb") as file:
            file.write(b"content")
    report = expect(
        storage, folder, {f"{folder}/na\\xefve.txt": Outcome.BAD_NAME, f"{folder}/fold\\xe9r/a.txt": Outcome.BAD_NAME}
    )
    for problem in report.problems:
        problem.name.encode()  # can be printed


@pytest.mark.parametrize(
    "name",
    ["ä.txt", "a\u0308.txt", "日本/語.txt", "😀.txt", "a b+c&d=e?f#g%20.txt", "'\"<>|*.txt", " .txt", "-.txt", "~$a"],
)
def test_odd_names_that_s3_does_take(storage: DualWriteStorage, folder: str, lab: Lab, name: str) -> None:
    write(lab, f"{folder}/{name}")
    expect(storage, folder, {})
    assert_sides_equal(storage, f"{folder}/")
    assert run(storage, folder).counts == {Outcome.CERTIFIED: 2}


def without_privileges(storage: DualWriteStorage, folder: str) -> tuple[Any, Any]:
    """In a child: run as root without root's powers is run as anybody who owns the files."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")
    return run(storage, folder, dry_run=True), run(storage, folder)


def test_what_may_not_be_read(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    base = Path(lab.root, folder)
    write(lab, f"{folder}/file.txt").chmod(0)
    for name, mode in (("closed", 0), ("not-searchable", 0o600), ("not-listable", 0o300)):
        write(lab, f"{folder}/{name}/a.txt")
        (base / name).chmod(mode)
    os.mkdir(os.fsencode(base) + b"/\xe9")
    os.chmod(os.fsencode(base) + b"/\xe9", 0)
    try:
        for report in run_in_child(without_privileges, storage, folder).unwrap():
            assert {problem.name: problem.outcome for problem in report.problems} == {
                f"{folder}/file.txt": Outcome.UNREADABLE,
                f"{folder}/closed": Outcome.UNREADABLE,
                f"{folder}/not-searchable/a.txt": Outcome.UNREADABLE,
                f"{folder}/not-listable": Outcome.UNREADABLE,
                f"{folder}/\\xe9": Outcome.UNREADABLE,
            }
            assert all("permission" in problem.detail for problem in report.problems)
            assert report.counts[Outcome.UPLOADED] == 1
    finally:
        for entry in os.scandir(os.fsencode(base)):
            os.chmod(entry.path, 0o700)
    assert run(storage, folder).counts == {Outcome.UPLOADED: 4, Outcome.CERTIFIED: 1}


def test_files_of_this_package_are_not_copied(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    write(lab, f"{folder}/.0123.dualstorage-tmp")
    expect(storage, folder, {})
    assert list(on_s3(storage, folder)) == [f"{folder}/ordinary.txt"]
    assert not [name for name in on_s3(storage) if name.startswith(".dualstorage")]


@pytest.mark.parametrize("prefix", ["nowhere/", "plain.txt/below/"])
def test_prefix_of_no_folder(storage: DualWriteStorage, lab: Lab, prefix: str) -> None:
    write(lab, "plain.txt")
    assert Backfill(storage, prefix=prefix).run(never_stop(), ignore).files == 0
