"""Repair: what it brings to S3, what it brings home, and what it refuses to delete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile

from django_dualstorage.core.report import Outcome
from django_dualstorage.exceptions import JournalError
from django_dualstorage.hints import Kind
from django_dualstorage.operations import repair as module
from tests.conftest import MakeStorage
from tests.support.asserts import (
    assert_sides_equal,
    head_object,
    hint,
    never_stop,
    put_object,
    repaired,
)
from tests.support.lab import Lab, seen
from tests.support.proxy import HeldAndLate, LostAnswer, Refused, Slow, Status


@pytest.fixture
def name(lab: Lab) -> Iterator[str]:
    lab.wire.clear()
    yield lab.name()
    lab.wire.clear_faults()
    lab.wire.drop_held()
    repaired(lab.storage("dual"))


@pytest.mark.parametrize("phase", ["mirror", "dual"])
def test_deferred_writes_are_drained(lab: Lab, name: str, phase: str) -> None:
    storage = lab.storage(phase, s3_writes="deferred", allow_overwrite=True)
    for content in (b"first", b"second"):
        storage.save(name, ContentFile(content))
    assert lab.wire.count() == 0
    assert seen(lab.storage("mirror"), name) == b"second"
    report = repaired(storage, grace_over=False)  # nothing was sent, so nothing need be waited for
    assert (report.counts, report.pending) == ({Outcome.UPLOADED: 1}, 0)
    assert_sides_equal(storage, name)
    lab.wire.clear()
    storage.delete(name)
    assert lab.wire.count() == 0
    assert seen(storage, name) is None
    report = repaired(storage, grace_over=False)
    assert (report.counts, report.pending) == ({Outcome.DELETED: 1}, 0)
    assert_sides_equal(storage, name)


def test_read_repair_leaves_one_hint_where_s3_is_behind(lab: Lab, name: str) -> None:
    storage = lab.storage("dual", read_repair=True)
    storage.save(name, ContentFile(b"old"))
    Path(storage.location, name).write_bytes(b"rotated by a tool")
    for _ in range(3):
        assert seen(storage, name) == b"rotated by a tool"
    assert [dead.record.kind for dead in storage.pair.journal.dead_hints_of(name)] == [Kind.READ]
    assert repaired(storage, grace_over=False).counts == {Outcome.REPLACED: 1}
    assert_sides_equal(storage, name)


def test_read_repair_takes_no_error_for_being_behind(lab: Lab, name: str) -> None:
    storage = lab.storage("dual", read_repair=True)
    storage.save(name, ContentFile(b"content"))
    lab.wire.fail(Status(503), method="GET", key=name)
    assert seen(storage, name) == b"content"
    assert not storage.pair.journal.has_hint(name)


@pytest.mark.parametrize("broken", [Status(503), LostAnswer()], ids=["503", "lost"])
def test_content_type_of_the_upload_survives_the_queue(lab: Lab, name: str, broken: Status) -> None:
    storage = lab.storage("dual", allow_overwrite=True)
    lab.wire.fail(broken, method="PUT", key=name)
    storage.save(name, SimpleUploadedFile("a.txt", b"content", content_type="application/x-special"))
    repaired(storage)
    assert head_object(storage, name)["ContentType"] == "application/x-special"
    # And a later repair of the same object, by which time the hint is gone.
    Path(storage.location, name).write_bytes(b"changed behind its back")
    hint(storage, name)
    repaired(storage)
    assert head_object(storage, name)["ContentType"] == "application/x-special"
    assert_sides_equal(storage, name)


def test_newest_of_several_types_counts(lab: Lab, name: str) -> None:
    storage = lab.storage("dual", s3_writes="deferred", allow_overwrite=True)
    for kind in ("text/first", "text/second"):
        storage.save(name, SimpleUploadedFile("a.txt", b"content", content_type=kind))
    hint(storage, name, Kind.RECONCILE)
    repaired(storage)
    assert head_object(storage, name)["ContentType"] == "text/second"


@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_file_that_only_s3_has_survives_a_create_that_failed(lab: Lab, name: str, phase: str) -> None:
    storage = lab.storage(phase)
    put_object(storage, name, b"somebody else's")
    hint(storage, name)  # a create that died before it had sent anything
    assert seen(storage, name) == b"somebody else's"
    assert repaired(storage).counts == {Outcome.NOTHING: 1}
    assert seen(storage, name) == b"somebody else's"


def test_object_of_a_create_that_never_committed_is_removed(lab: Lab, name: str) -> None:
    storage = lab.storage("dual")
    op_id = hint(storage, name)
    put_object(storage, name, b"content", Metadata={"ds-op": op_id, "ds-stamp": "7:1"})
    assert repaired(storage).counts == {Outcome.DELETED: 1}
    assert_sides_equal(storage, name)


def test_hint_of_a_live_operation_is_left_alone(lab: Lab, name: str) -> None:
    storage = lab.storage("dual")
    live = storage.pair.journal.announce(Kind.SAVE, name, phase="dual")
    assert repaired(storage).files == 0
    live.clear()


def test_grace_is_counted_from_the_last_request(lab: Lab, name: str) -> None:
    storage = lab.storage("dual", grace=900)
    lab.wire.fail(LostAnswer(), method="PUT", key=name)
    storage.save(name, ContentFile(b"content"))
    (dead,) = storage.pair.journal.dead_hints_of(name)
    report = repaired(storage, grace_over=False, clock=lambda: dead.last_sent + 899)
    assert (report.counts, report.pending) == ({Outcome.CERTIFIED: 1}, 1)
    report = repaired(storage, grace_over=False, clock=lambda: dead.last_sent + 901)
    assert (report.counts, report.pending) == ({Outcome.CERTIFIED: 1}, 0)
    assert_sides_equal(storage, name)


def test_own_delete_that_is_lost_waits_in_its_turn(lab: Lab, name: str) -> None:
    storage = lab.storage("dual")
    storage.save(name, ContentFile(b"content"))
    lab.wire.fail(Refused(), method="DELETE", key=name)
    storage.delete(name)
    lab.wire.fail(HeldAndLate(), method="DELETE", key=name)
    assert repaired(storage).problem_count == 1
    assert seen(storage, name) is None
    assert repaired(storage).complete
    storage.save(name, ContentFile(b"again"))
    lab.wire.release()
    assert seen(storage, name) == b"again"
    hint(storage, name)
    repaired(storage)
    assert_sides_equal(storage, name)


def test_slow_answers_are_clean(lab: Lab, name: str) -> None:
    storage = lab.storage("dual", s3_writes="deferred")
    storage.save(name, ContentFile(b"content"))
    lab.wire.fail(Slow(delay=0.05), times=None)
    assert repaired(storage, grace_over=False).pending == 0
    assert_sides_equal(storage, name)


def test_damaged_hint_is_reported_and_does_not_keep_the_others_waiting(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    hint(storage, "a.txt")
    (path,) = Path(storage.location, ".dualstorage/hints").glob("*/*")
    path.write_text("nonsense\n")
    hint(storage, "b.txt")
    report = module.repair(storage, never_stop(), lambda result: None)
    assert [(problem.name, problem.outcome) for problem in report.problems] == [(str(path), Outcome.FAILED)]
    assert "damaged" in report.problems[0].detail
    assert list(Path(storage.location, ".dualstorage/hints").glob("*/*")) == [path]


def test_hint_that_is_damaged_under_way_stops_it(make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make_storage("dual")
    hint(storage, "a.txt")
    (path,) = Path(storage.location, ".dualstorage/hints").glob("*/*")

    def damage(step: object) -> None:
        path.write_text("nonsense\n")

    storage.pair.observe = damage
    with pytest.raises(JournalError, match="damaged"):
        repaired(storage)


def test_stop_leaves_the_rest(make_storage: MakeStorage) -> None:
    storage = make_storage("dual", s3_writes="deferred")
    for number in range(60):
        storage.save(f"{number}.txt", ContentFile(b"content"))
    stop = never_stop()
    report = module.repair(storage, stop, lambda result: stop.ask(), workers=1)
    assert report.interrupted
    assert 0 < report.files < 60
    assert repaired(storage).files == 60 - report.files
    assert_sides_equal(storage)


def test_staged_file_of_a_killed_save_is_removed(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    op_id = hint(storage, "a/b.txt")
    os.mkdir(os.path.join(storage.location, "a"))
    Path(storage.location, f"a/.{op_id}.dualstorage-tmp").write_bytes(b"half")
    repaired(storage)
    assert os.listdir(os.path.join(storage.location, "a")) == []
