"""Repair: what it brings to S3, what it brings home, and what it refuses to delete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile

from django_dualstorage.core.report import Outcome
from django_dualstorage.exceptions import JournalError, S3Error
from django_dualstorage.journal import Kind
from django_dualstorage.operations import repair as module
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import (
    assert_sides_equal,
    head_object,
    never_stop,
    on_disk,
    on_s3,
    put_object,
    repaired,
)
from tests.support.lab import Lab, seen
from tests.support.proxy import FaultProxy, HeldAndLate, LostAnswer, Refused, Slow, Status
from tests.support.seaweed import SeaweedServer


@pytest.fixture(scope="module")
def lab(seaweed: SeaweedServer, seaweed_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with FaultProxy(seaweed.endpoint_url) as wire:
        yield Lab(seaweed, seaweed_bucket, tmp_path_factory.mktemp("media"), wire)


@pytest.fixture
def name(lab: Lab) -> Iterator[str]:
    lab.wire.clear()
    yield lab.name()
    lab.wire.clear_faults()
    lab.wire.drop_held()
    repaired(lab.storage("dual"))


def hint(storage: DualWriteStorage, name: str, kind: Kind = Kind.SAVE) -> str:
    hint = storage.pair.journal.announce(kind, name, phase="dual")
    hint.leave()
    return hint.record.op_id


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


# -- where S3 is the truth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
@pytest.mark.parametrize("stamped", [True, False])
def test_file_is_brought_home(make_storage: MakeStorage, phase: str, stamped: bool) -> None:
    storage = make_storage(phase, file_permissions_mode=0o640)
    for name in ("new/a.txt", "b.txt"):
        put_object(storage, name, b"of S3", Metadata={"ds-stamp": "5:1000000000123456789"} if stamped else {})
        hint(storage, name)
    Path(storage.location, "b.txt").write_bytes(b"of the disk")
    assert repaired(storage).counts == {Outcome.BROUGHT_HOME: 2}
    assert {version.content for version in on_disk(storage).values()} == {b"of S3"}
    assert Path(storage.location, "b.txt").stat().st_mode & 0o777 == 0o640
    if stamped:
        assert_sides_equal(storage)
        hint(storage, "b.txt")
        assert repaired(storage).counts == {Outcome.CERTIFIED: 1}


def test_stamp_that_does_not_fit_the_object_is_not_taken_over(make_storage: MakeStorage) -> None:
    storage = make_storage("s3-primary")
    put_object(storage, "a.txt", b"of S3", Metadata={"ds-stamp": "9999:1000000000123456789"})
    hint(storage, "a.txt")
    repaired(storage)
    assert Path(storage.location, "a.txt").stat().st_mtime_ns != 1000000000123456789


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
def test_file_that_s3_lacks_is_moved_aside_and_not_deleted(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    Path(storage.location, "a").mkdir()
    Path(storage.location, "a/b.txt").write_bytes(b"precious")
    hint(storage, "a/b.txt")
    hint(storage, "nowhere.txt")
    report = repaired(storage, clock=lambda: 1_000_000_000.0)
    assert report.counts == {Outcome.QUARANTINED: 1, Outcome.NOTHING: 1}
    assert not Path(storage.location, "a/b.txt").exists()
    aside = Path(storage.location, ".dualstorage/quarantine/2001-09-09/a/b.txt")
    assert aside.read_bytes() == b"precious"
    assert aside.parent.stat().st_mode & 0o077 == 0
    assert on_s3(storage) == {}
    assert not storage.pair.journal.count()


@pytest.mark.parametrize("fault", [Status(503), Refused()], ids=["503", "refused"])
def test_file_is_kept_while_s3_does_not_answer(make_proxied: MakeStorage, proxy: FaultProxy, fault: Status) -> None:
    storage = make_proxied("s3-primary")
    Path(storage.location, "a.txt").write_bytes(b"precious")
    hint(storage, "a.txt")
    proxy.fail(fault, times=None)
    assert repaired(storage).problem_count == 1
    assert Path(storage.location, "a.txt").read_bytes() == b"precious"
    assert storage.pair.journal.count() == 1


def test_answer_that_is_cut_short_is_not_brought_home(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    from tests.support.proxy import Truncated

    storage = make_proxied("s3-primary", read_timeout=30)
    put_object(storage, "a.txt", b"of S3" * 1000)
    Path(storage.location, "a.txt").write_bytes(b"of the disk")
    hint(storage, "a.txt")
    proxy.fail(Truncated(100), method="GET", key="a.txt")
    assert repaired(storage).problem_count == 1
    assert Path(storage.location, "a.txt").read_bytes() == b"of the disk"
    assert repaired(storage).complete
    assert Path(storage.location, "a.txt").read_bytes() == b"of S3" * 1000


# -- the brake -------------------------------------------------------------------------------------------------------


def emptied(storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch, *, left: int) -> None:
    """Files with hints whose disk was emptied by hand, and ``left`` others."""
    monkeypatch.setattr(module, "MANY", 3)
    for number in range(4):
        op_id = hint(storage, f"gone{number}.txt")
        put_object(storage, f"gone{number}.txt", b"content", Metadata={"ds-op": op_id})
    for number in range(left):
        Path(storage.location, f"left{number}.txt").write_bytes(b"content")


def test_deletes_en_masse_are_refused(make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = make_storage("dual")
    emptied(storage, monkeypatch, left=39)
    with pytest.raises(RefusedError, match=r"4 files with hints are not on the disk, and only 39 files.*--force"):
        repaired(storage)
    assert len(on_s3(storage)) == 4
    assert repaired(storage, force=True).counts == {Outcome.DELETED: 4}
    assert on_s3(storage) == {}


def test_a_few_deletes_of_a_large_tree_are_carried_out(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_storage("dual")
    emptied(storage, monkeypatch, left=40)
    assert repaired(storage).counts == {Outcome.DELETED: 4}


def test_deletes_that_the_application_asked_for_are_carried_out(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MANY", 3)
    storage = make_storage("dual", s3_writes="deferred")
    for number in range(4):
        put_object(storage, f"{number}.txt", b"content")
        storage.delete(f"{number}.txt")
    assert repaired(storage).counts == {Outcome.DELETED: 4}


def test_saves_that_failed_are_not_taken_for_a_disk_that_was_emptied(
    make_proxied: MakeStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage in a phase that raises errors must not end in a repair that has to be forced."""
    monkeypatch.setattr(module, "MANY", 3)
    storage = make_proxied("dual-strict", read_timeout=30)
    proxy.fail(Status(503), method="PUT", times=None)
    for number in range(4):
        with pytest.raises(S3Error):
            storage.save(f"{number}.txt", ContentFile(b"content"))
    hint(storage, "no\x01where.txt")
    proxy.clear_faults()
    assert repaired(storage).counts == {Outcome.NOTHING: 5}
    assert_sides_equal(storage)


def test_brake_holds_while_s3_cannot_be_asked(
    make_proxied: MakeStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_proxied("dual", read_timeout=30)
    emptied(storage, monkeypatch, left=0)
    proxy.fail(Status(503), method="HEAD", times=None)
    with pytest.raises(RefusedError):
        repaired(storage)


# -- the journal and the run -----------------------------------------------------------------------------------------


def test_damaged_hint_stops_it(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    hint(storage, "a.txt")
    (path,) = Path(storage.location, ".dualstorage/hints").glob("*/*")
    path.write_text("nonsense\n")
    with pytest.raises(JournalError, match="damaged"):
        repaired(storage)


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
