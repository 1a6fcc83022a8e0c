"""Walking the tree: every file once, and a reason for everything that is none."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from django_dualstorage.core.names import staged_name
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.sides import walk as walk_module
from django_dualstorage.sides.walk import walk
from tests.support.fork import run_in_child


def walked(root: Path, prefix: str = "") -> tuple[list[str], dict[str, Outcome]]:
    found = list(walk(str(root), prefix))
    names = [one for one in found if isinstance(one, str)]
    problems = {one.name: one.outcome for one in found if isinstance(one, FileResult)}
    assert len(names) + len(problems) == len(found)
    return sorted(names), problems


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_every_file_is_found_once_and_nothing_of_ours(tmp_path: Path) -> None:
    names = ["a", "b/c", "b/d/e", "b-c", ".hidden", "ü/名"]
    fill(tmp_path, *names, ".dualstorage/key", ".dualstorage/hints/ab/x", f"b/{staged_name('1')}")
    (tmp_path / "empty").mkdir()
    assert walked(tmp_path) == (sorted(names), {})


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("b", ["b-c", "b/c", "b/d/e"]),
        ("b/", ["b/c", "b/d/e"]),
        ("b/d", ["b/d/e"]),
        ("b/d/e", ["b/d/e"]),
        ("b/x", []),
        ("a", ["a"]),
        ("a/b", []),
        ("nowhere/at/all", []),
    ],
)
def test_a_prefix_is_the_beginning_of_a_name(tmp_path: Path, prefix: str, expected: list[str]) -> None:
    fill(tmp_path, "a", "b/c", "b/d/e", "b-c")
    assert walked(tmp_path, prefix) == (expected, {})


def test_links_to_files_are_files_and_links_to_folders_are_told(tmp_path: Path) -> None:
    fill(tmp_path, "a", "folder/b")
    (tmp_path / "file-link").symlink_to("a")
    (tmp_path / "broken-link").symlink_to("nowhere")
    (tmp_path / "folder-link").symlink_to("folder")
    (tmp_path / "folder" / "loop").symlink_to("..")
    names, problems = walked(tmp_path)
    assert names == ["a", "file-link", "folder/b"]
    assert problems == dict.fromkeys(("broken-link", "folder-link", "folder/loop"), Outcome.SYMLINK)


def test_what_is_no_file_and_names_that_are_no_text_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(os.path.join(os.fsencode(tmp_path), b"bad\xff"), "wb"):
        pass
    names, problems = walked(tmp_path)
    assert names == []
    assert problems == {"pipe": Outcome.SPECIAL, "bad\\xff": Outcome.BAD_NAME}


def test_a_root_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="volume mounted"):
        list(walk(str(tmp_path / "nowhere")))


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    fill(tmp_path, "open/a", "closed/b")
    (tmp_path / "closed").chmod(0)

    def as_somebody() -> tuple[list[str], dict[str, Outcome]]:
        if os.geteuid() == 0:
            os.setuid(65534)
        return walked(tmp_path)

    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    assert run_in_child(as_somebody).unwrap() == (["open/a"], {"closed": Outcome.UNREADABLE})
    (tmp_path / "closed").chmod(0o700)


def test_a_folder_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, "a/b", "c/d")
    steps = walk(str(tmp_path))
    first = next(steps)
    for name in ("a", "c"):
        if isinstance(first, str) and not first.startswith(name):
            (tmp_path / name / ("b" if name == "a" else "d")).unlink()
            (tmp_path / name).rmdir()
    assert list(steps) == []


def test_what_a_killed_process_was_writing_is_swept_once_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, f"a/{staged_name('1')}", f"a/{staged_name('2')}", f"a/{staged_name('3')}")
    (tmp_path / "a" / staged_name("3")).unlink()
    (tmp_path / "a" / staged_name("3")).mkdir()
    (tmp_path / "a" / staged_name("4")).symlink_to("nowhere")
    walked(tmp_path)
    assert len(list((tmp_path / "a").iterdir())) == 4  # all are young
    monkeypatch.setattr(walk_module, "_FORGOTTEN_AFTER", time.time() - 2**33)
    with open(tmp_path / "a" / staged_name("2")) as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        walked(tmp_path)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(map(staged_name, "234"))
