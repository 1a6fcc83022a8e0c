"""Repair where S3 is the truth, and its brake on mass deletion where the disk is."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core.report import Outcome
from django_dualstorage.exceptions import S3Error, S3TransientError
from django_dualstorage.operations import repair as module
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, hint, on_disk, on_s3, put_object, repaired
from tests.support.proxy import FaultProxy, Refused, Status, Truncated


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


def test_a_second_file_of_that_name_is_moved_aside_too(make_storage: MakeStorage) -> None:
    storage = make_storage("s3-primary")
    for content in (b"first", b"second"):
        Path(storage.location, "a.txt").write_bytes(content)
        hint(storage, "a.txt")
        assert repaired(storage).counts == {Outcome.QUARANTINED: 1}
    aside = Path(storage.location, ".dualstorage/quarantine")
    assert sorted(path.read_bytes() for path in aside.glob("*/*")) == [b"first", b"second"]


@pytest.mark.parametrize("fault", [Status(503), Refused()], ids=["503", "refused"])
def test_file_is_kept_while_s3_does_not_answer(make_proxied: MakeStorage, proxy: FaultProxy, fault: Status) -> None:
    storage = make_proxied("s3-primary")
    Path(storage.location, "a.txt").write_bytes(b"precious")
    hint(storage, "a.txt")
    proxy.fail(fault, key="a.txt", times=None)
    assert repaired(storage).problem_count == 1
    proxy.fail(fault, times=None)
    with pytest.raises(S3TransientError):
        repaired(storage)
    assert Path(storage.location, "a.txt").read_bytes() == b"precious"
    assert storage.pair.journal.count() == 1


def test_one_answer_that_goes_wrong_does_not_end_a_repair(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = make_proxied("dual")
    Path(storage.location, "a.txt").write_bytes(b"content")
    hint(storage, "a.txt")
    proxy.fail(Status(503), method="GET", times=1)
    assert repaired(storage).counts == {Outcome.UPLOADED: 1}


def test_answer_that_is_cut_short_is_not_brought_home(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
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
