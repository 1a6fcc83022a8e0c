"""The journal: who may read it, what it tells nobody, which hints live, and what it says when it is damaged."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from django_dualstorage.core.names import JOURNAL_DIR
from django_dualstorage.exceptions import JournalError
from django_dualstorage.hints import Kind
from django_dualstorage.journal import Journal


@pytest.fixture
def journal(media_root: Path) -> Journal:
    return Journal(str(media_root))


def paths(journal: Journal) -> list[Path]:
    return sorted(Path(journal.root, "hints").glob("*/*"))


def leave(journal: Journal, name: str = "a.txt", kind: Kind = Kind.SAVE, *, sent: bool = False) -> str:
    hint = journal.announce(kind, name, phase="dual")
    if sent:
        hint.sending()
    hint.leave()
    return hint.record.op_id


def test_building_and_asking_touch_nothing(journal: Journal, media_root: Path) -> None:
    assert not journal.has_hint("a.txt")
    assert journal.hints_of("a.txt") == []
    assert journal.dead_hints_of("a.txt") == []
    assert list(journal.names_with_dead_hints()) == []
    assert (journal.count(), journal.sweep(), journal.read_capabilities()) == (0, 0, {})
    assert list(media_root.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_may_look(journal: Journal, umask: int) -> None:
    before = os.umask(umask)
    try:
        leave(journal)
        journal.write_capabilities({"a": 1})
        assert journal.volume_id
    finally:
        os.umask(before)
    for folder, _, files in os.walk(journal.root):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        for name in files:
            assert stat.S_IMODE(Path(folder, name).stat().st_mode) == 0o600


def test_hint_file_tells_nothing_to_who_has_not_the_key(journal: Journal, tmp_path: Path) -> None:
    leave(journal, "secret-name.txt")
    (path,) = paths(journal)
    assert "secret" not in str(path.relative_to(journal.root))
    other = Journal(str(tmp_path / "other"))
    leave(other, "secret-name.txt")
    (elsewhere,) = paths(other)
    assert path.name.partition("-")[0] != elsewhere.name.partition("-")[0]  # so it cannot be computed from the name


def test_two_objects_of_one_root_agree(journal: Journal, media_root: Path, tmp_path: Path) -> None:
    other = Journal(str(media_root))
    assert (journal.key, journal.volume_id) == (other.key, other.volume_id)
    assert journal.volume_id != Journal(str(tmp_path / "other")).volume_id


def test_many_first_users_agree_on_one_key(media_root: Path) -> None:
    found: list[tuple[bytes, str]] = []
    begin = threading.Barrier(8)

    def use() -> None:
        journal = Journal(str(media_root))
        begin.wait()
        found.append((journal.key, journal.volume_id))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert os.listdir(media_root / JOURNAL_DIR / "new") == []


def test_filesystem_without_hard_links(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert journal.key == Journal(os.path.dirname(journal.root)).key


@pytest.mark.parametrize("name", ["key", "volume"])
@pytest.mark.parametrize("content", ["", "short", "zz" * 32])
def test_damaged_key_says_what_to_do(journal: Journal, name: str, content: str) -> None:
    assert journal.key
    assert journal.volume_id
    Path(journal.root, name).write_text(content)
    fresh = Journal(os.path.dirname(journal.root))
    with pytest.raises(JournalError, match=rf"{name} is damaged.*delete that file"):
        fresh.key if name == "key" else fresh.volume_id  # noqa: B018


def test_folder_that_cannot_be_used_says_what_to_do(media_root: Path) -> None:
    (media_root / JOURNAL_DIR).write_text("a file")
    journal = Journal(str(media_root))
    with pytest.raises(JournalError, match=r"Cannot use the journal folder .*must own this folder"):
        journal.announce(Kind.SAVE, "a.txt", phase="dual")


def test_sweep_removes_what_was_forgotten_and_nothing_else(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal.key
    new = Path(journal.root, "new")
    for name in ("young", "old", "locked"):
        (new / name).touch()
    assert journal.sweep() == 0
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    with open(new / "locked", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert journal.sweep() == 2
    assert os.listdir(new) == ["locked"]


def test_sweep_beside_a_writer_that_finishes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal.key
    path = Path(journal.root, "new", "a")
    path.touch()
    entries = journal._entries(os.path.join(journal.root, "new"))
    path.unlink()
    monkeypatch.setattr(journal, "_entries", lambda folder: entries)
    assert journal.sweep() == 0


def test_filesystem_that_keeps_nanoseconds(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal.keeps_nanoseconds
    assert os.listdir(os.path.join(journal.root, "new")) == []
    coarse = Journal(os.path.dirname(journal.root))
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda fd, ns: utime(fd, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9)))
    assert not coarse.keeps_nanoseconds


@pytest.mark.parametrize("content", [None, "nonsense", "[]", '"text"'])
def test_capabilities_that_cannot_be_read_count_as_none(journal: Journal, content: str | None) -> None:
    journal.write_capabilities({"here": {"conditions": True}})
    assert journal.read_capabilities() == {"here": {"conditions": True}}
    path = Path(journal.root, "capabilities.json")
    assert json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(content)
    assert journal.read_capabilities() == {}
