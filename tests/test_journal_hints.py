"""Hints: which live, which are dead, what is left of them when their writer dies."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from django_dualstorage import hints as module
from django_dualstorage.exceptions import JournalError
from django_dualstorage.hints import DeadHint, HintRecord, Kind
from django_dualstorage.journal import Journal
from tests.support.fork import run_in_child
from tests.support.lab import idle_child


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


def test_record_survives_the_file(journal: Journal) -> None:
    name = 'ä\udce9"\n\\.txt'
    hint = journal.announce(Kind.SAVE, name, phase="dual-strict", content_type="image/png")
    assert journal.hints_of(name) == [hint.record]
    assert hint.record.pid == os.getpid()
    assert hint.record.name == name
    hint.leave()
    (dead,) = journal.dead_hints_of(name)
    assert dead.record == hint.record
    assert list(journal.names_with_dead_hints()) == [name]


def test_live_hints_are_seen_by_readers_and_skipped_by_repair(journal: Journal) -> None:
    hint = journal.announce(Kind.SAVE, "a.txt", phase="dual")
    assert journal.has_hint("a.txt")
    assert not journal.has_hint("b.txt")
    assert journal.count() == 1
    assert journal.dead_hints_of("a.txt") == []
    assert list(journal.names_with_dead_hints()) == []
    hint.leave()
    assert [dead.record.op_id for dead in journal.dead_hints_of("a.txt")] == [hint.record.op_id]


def test_cleared_hint_is_gone(journal: Journal) -> None:
    journal.announce(Kind.SAVE, "a.txt", phase="dual").clear()
    assert not journal.has_hint("a.txt")
    assert journal.count() == 0


def test_hints_of_a_name_come_oldest_first_and_a_name_comes_once(journal: Journal) -> None:
    ops = [leave(journal, kind=kind) for kind in (Kind.SAVE, Kind.DELETE, Kind.RECONCILE)]
    leave(journal, "b.txt")
    assert [dead.record.op_id for dead in journal.dead_hints_of("a.txt")] == ops
    assert sorted(journal.names_with_dead_hints()) == ["a.txt", "b.txt"]
    for dead in journal.dead_hints_of("a.txt"):
        journal.forget(dead)
        journal.forget(dead)  # somebody else may have been first
    assert journal.count() == 1


def test_killed_operation_is_dead_at_once(journal: Journal) -> None:
    def die() -> None:
        journal.announce(Kind.SAVE, "a.txt", phase="dual")
        os.kill(os.getpid(), signal.SIGKILL)

    assert journal.key
    assert run_in_child(die).killed
    assert len(journal.dead_hints_of("a.txt")) == 1


def test_forked_child_does_not_keep_the_hint_of_its_parent_alive(journal: Journal) -> None:
    """The child has the open file, too; what counts is the operation."""
    hint = journal.announce(Kind.SAVE, "a.txt", phase="dual")
    with idle_child():
        assert journal.dead_hints_of("a.txt") == []
        hint.leave()
        assert len(journal.dead_hints_of("a.txt")) == 1


def test_two_that_look_at_once_do_not_take_each_other_for_the_owner(journal: Journal) -> None:
    leave(journal)
    (path,) = paths(journal)
    with open(path, "rb") as other:
        assert module.is_unlocked(other.fileno())  # another repair, just looking
        assert len(journal.dead_hints_of("a.txt")) == 1


@pytest.mark.parametrize("content", [b"", b'["half'])
def test_hint_whose_writer_died_before_it_did_anything_is_removed(journal: Journal, content: bytes) -> None:
    leave(journal)
    (path,) = paths(journal)
    path.write_bytes(content)
    assert journal.hints_of("a.txt") == []
    assert journal.dead_hints_of("a.txt") == []
    assert paths(journal) == []


def test_writer_whose_hint_was_removed_before_it_got_the_lock_makes_another(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    taken: list[str] = []

    def too_late(fd: int, how: int) -> None:
        if not taken:
            taken.append("removed")
            assert journal.dead_hints_of("a.txt") == []  # a repair looks in between
        flock(fd, how)

    assert journal.key
    monkeypatch.setattr(fcntl, "flock", too_late)
    hint = journal.announce(Kind.SAVE, "a.txt", phase="dual")
    assert journal.hints_of("a.txt") == [hint.record]
    hint.clear()
    assert journal.count() == 0


@pytest.mark.parametrize(
    "content", [b"nonsense\n", b"{}\n", b"[]\n", b'["id", "nonsense", "a.txt"]\n', b'["id", "save"]\n', b"\xff\n"]
)
def test_damaged_hint_says_where_it_lies_and_what_to_do(journal: Journal, content: bytes) -> None:
    leave(journal)
    (path,) = paths(journal)
    path.write_bytes(content)
    questions: list[Callable[[], object]] = [
        lambda: journal.hints_of("a.txt"),
        lambda: journal.dead_hints_of("a.txt"),
        lambda: list(journal.names_with_dead_hints()),
    ]
    for question in questions:
        with pytest.raises(JournalError, match=r"damaged.*dualstorage_backfill") as failure:
            question()
        assert str(path) in str(failure.value)
    assert journal.has_hint("a.txt")


def test_hint_that_is_gone_between_two_looks(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(journal)
    found = journal._paths_of("a.txt")
    monkeypatch.setattr(journal, "_paths_of", lambda name: found)
    monkeypatch.setattr(journal, "_all_hint_paths", lambda: iter(found))
    paths(journal)[0].unlink()
    assert journal.hints_of("a.txt") == []
    assert journal.dead_hints_of("a.txt") == []
    assert list(journal.names_with_dead_hints()) == []


def test_hint_removed_after_it_was_opened(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(journal)
    (path,) = paths(journal)
    look = module.is_unlocked

    def late(fd: int) -> bool:
        path.unlink()
        return look(fd)

    monkeypatch.setattr(module, "is_unlocked", late)
    assert journal.dead_hints_of("a.txt") == []


def test_requests_may_land_until_the_grace_after_the_last_was_sent(journal: Journal) -> None:
    leave(journal)
    (unsent,) = journal.dead_hints_of("a.txt")
    assert not unsent.may_still_land(1e9, time.time())
    leave(journal, "b.txt", sent=True)
    (sent,) = journal.dead_hints_of("b.txt")
    assert sent.may_still_land(900, sent.last_sent + 899)
    assert not sent.may_still_land(900, sent.last_sent + 900)
    assert DeadHint(sent.record, "", 1.0).may_still_land(10, 5)


def test_full_disk_leaves_no_half_hint(journal: Journal) -> None:
    def announce_without_room() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, resource.RLIM_INFINITY))
        try:
            journal.announce(Kind.SAVE, "a.txt", phase="dual")
        except JournalError as error:
            return str(error)
        return "no error"

    assert journal.key
    assert "must have room" in run_in_child(announce_without_room).unwrap()
    assert journal.count() == 0


def test_hints_are_flushed_where_configured(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    Journal(str(media_root)).announce(Kind.SAVE, "a.txt", phase="dual").clear()
    assert not flushed
    Journal(str(media_root), fsync=True).announce(Kind.SAVE, "a.txt", phase="dual").clear()
    assert len(flushed) == 2


def test_foreign_text_is_no_record() -> None:
    record = HintRecord("id", Kind.SAVE, "a.txt", "dual", 1.5, 7)
    assert HintRecord.decoded(record.encoded()) == record
    assert HintRecord.decoded(record.encoded() + b"!!") == record
