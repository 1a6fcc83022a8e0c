"""Backfill: what it copies, what it leaves alone, and what the site does meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.exceptions import S3Error
from django_dualstorage.hints import Kind
from django_dualstorage.models import StorageState
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import (
    assert_sides_equal,
    client_of,
    head_object,
    key,
    never_stop,
    on_s3,
    put_object,
    repaired,
)
from tests.support.backfills import counts, run, write
from tests.support.lab import Lab, seen
from tests.support.proxy import FaultProxy, Refused, Status


@pytest.fixture
def storage(lab: Lab) -> Iterator[DualWriteStorage]:
    storage = lab.storage("dual", allow_overwrite=True)
    if not storage.pair.s3.honours_conditions:
        probe(storage.pair)
    lab.wire.clear()
    yield storage
    storage.pair.observe = lambda step: None
    lab.wire.clear_faults()


@pytest.fixture
def folder(lab: Lab) -> str:
    """A folder of this test alone; ends with a slash."""
    return os.path.dirname(lab.name()) + "/"


@pytest.fixture
def tree(storage: DualWriteStorage, folder: str) -> str:
    """A file of each kind."""
    storage.save(f"{folder}certified.txt", ContentFile(b"certified"))
    storage.save(f"{folder}stale.txt", ContentFile(b"an older version"))
    write(storage, f"{folder}stale.txt", b"the version of now")
    write(storage, f"{folder}sub/missing.txt", b"missing")
    write(storage, f"{folder}empty.txt", b"")
    write(storage, f"{folder}equal.txt", b"equal")
    put_object(storage, f"{folder}equal.txt", b"equal")
    write(storage, f"{folder}differs.txt", b"1234")
    put_object(storage, f"{folder}differs.txt", b"abcd")
    write(storage, f"{folder}longer.txt", b"1234")
    put_object(storage, f"{folder}longer.txt", b"abcdefgh")
    return folder


EXPECTED = {"certified": 1, "uploaded": 2, "replaced": 3, "adopted": 1}


def test_each_kind_of_file(storage: DualWriteStorage, tree: str, lab: Lab) -> None:
    results: list[FileResult] = []
    report = run(storage, tree, results.append)
    assert counts(report) == EXPECTED
    assert report.complete
    assert (report.files, report.s3_only, report.pending) == (7, 0, 0)
    assert report.bytes_moved == len(b"missingthe version of now12341234")
    assert sorted(result.name for result in results) == sorted(on_s3(storage, tree))
    assert_sides_equal(storage, tree)


def test_dry_run_counts_the_same_and_changes_nothing(storage: DualWriteStorage, tree: str, lab: Lab) -> None:
    before = on_s3(storage, tree)
    lab.wire.clear()
    report = run(storage, tree, dry_run=True)
    assert report.dry_run
    assert counts(report) == EXPECTED
    assert not [request for request in lab.wire.requests if request.method not in ("GET", "HEAD")]
    assert on_s3(storage, tree) == before
    assert counts(run(storage, tree)) == EXPECTED


def test_second_run_sends_nothing_but_questions(storage: DualWriteStorage, tree: str, lab: Lab) -> None:
    run(storage, tree)
    lab.wire.clear()
    report = run(storage, tree)
    assert counts(report) == {"certified": 7}
    assert report.bytes_moved == 0
    assert {request.method for request in lab.wire.requests} == {"GET"}
    assert lab.wire.count("GET", "^.") == 0  # LIST only


def test_unstamped_equal_object_is_adopted_without_sending_its_bytes(
    storage: DualWriteStorage, folder: str, lab: Lab
) -> None:
    content = os.urandom(300_000)
    name = f"{folder}a.jpg"
    write(storage, name, content)
    put_object(storage, name, content, ContentType="binary/octet-stream")
    lab.wire.clear()
    assert counts(run(storage, folder)) == {"adopted": 1}
    assert sum(request.body_bytes for request in lab.wire.requests) < 1000
    assert sum(request.answer_bytes for request in lab.wire.requests) < 10_000
    assert head_object(storage, name)["ContentType"] == "image/jpeg"  # as the application would have written it
    assert_sides_equal(storage, folder)


@pytest.mark.parametrize("equal", [True, False])
def test_unstamped_object_in_parts_is_compared_byte_by_byte(
    storage: DualWriteStorage, folder: str, equal: bool
) -> None:
    content = os.urandom(6 * 1024 * 1024)
    name = f"{folder}a.bin"
    write(storage, name, content)
    client, bucket = client_of(storage)
    where = {"Bucket": bucket, "Key": key(storage, name)}
    upload = client.create_multipart_upload(**where)["UploadId"]
    sent = content if equal else content[:-1] + bytes([content[-1] ^ 1])
    parts = []
    for number, start in enumerate((0, 5 * 1024 * 1024), 1):
        body = sent[start : start + 5 * 1024 * 1024]
        answer = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    assert "-" in head_object(storage, name)["ETag"]
    assert counts(run(storage, folder, dry_run=True)) == {"adopted" if equal else "replaced": 1}
    assert counts(run(storage, folder)) == {"adopted" if equal else "replaced": 1}
    assert_sides_equal(storage, folder)


def test_objects_without_a_file_are_counted_and_left_alone(storage: DualWriteStorage, folder: str) -> None:
    put_object(storage, f"{folder}only.txt", b"only here")
    report = run(storage, folder)
    assert (report.files, report.s3_only, report.complete) == (0, 1, True)
    assert seen(storage, f"{folder}only.txt") == b"only here"


def test_s3_error_on_one_file_does_not_stop_the_others(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    for name in "abc":
        write(storage, f"{folder}{name}.txt", b"content")
    put_object(storage, f"{folder}b.txt", b"something else")
    lab.wire.fail(Status(403), method="PUT", key="a.txt")
    lab.wire.fail(Refused(), method="HEAD", key="b.txt")
    report = run(storage, folder)
    assert {problem.name: problem.outcome for problem in report.problems} == {
        f"{folder}a.txt": Outcome.FAILED,
        f"{folder}b.txt": Outcome.FAILED,
    }
    assert all("run the command again" in problem.detail for problem in report.problems)
    assert run(storage, folder).complete
    repaired(storage)
    assert_sides_equal(storage, folder)


@pytest.mark.parametrize("dry_run", [False, True])
def test_s3_that_cannot_be_listed_is_an_error(storage: DualWriteStorage, folder: str, lab: Lab, dry_run: bool) -> None:
    lab.wire.fail(Status(403), method="GET", key="^$")
    with pytest.raises(S3Error):
        run(storage, folder, dry_run=dry_run)


def test_dry_run_reports_an_s3_error_by_name(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    write(storage, f"{folder}a.txt", b"content")
    put_object(storage, f"{folder}a.txt", b"something else")
    lab.wire.fail(Status(503), method="HEAD", key="a.txt")
    report = run(storage, folder, dry_run=True)
    assert [(problem.name, problem.outcome) for problem in report.problems] == [(f"{folder}a.txt", Outcome.FAILED)]


def test_file_with_a_hint_is_looked_at_though_it_is_certified(storage: DualWriteStorage, folder: str) -> None:
    name = f"{folder}a.txt"
    storage.save(name, ContentFile(b"content"))
    storage.pair.journal.announce(Kind.SAVE, name, phase="dual").leave()
    assert counts(run(storage, folder, clock=lambda: 4e9)) == {"certified": 1}
    assert_sides_equal(storage, folder)


def test_young_file_is_left_to_settle(storage: DualWriteStorage, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    write(storage, f"{folder}young.txt", b"content", mtime=99_500_000_000)
    write(storage, f"{folder}old.txt", b"content", mtime=90_000_000_000)
    write(storage, f"{folder}future.txt", b"content", mtime=110_000_000_000)
    assert counts(run(storage, folder, clock=lambda: 100.0)) == {"uploaded": 3}
    assert [pause for pause in waited if pause > 0.1] == [1.5]  # others in this process sleep, too, but briefly


def test_prefix_takes_names_that_begin_so(storage: DualWriteStorage, folder: str) -> None:
    for name in ("ab/1.txt", "ab2.txt", "b.txt", "a/ab.txt"):
        write(storage, folder + name, b"content")
    run(storage, f"{folder}ab")
    assert sorted(on_s3(storage, folder)) == [f"{folder}ab/1.txt", f"{folder}ab2.txt"]


def test_stop_finishes_what_is_in_flight(storage: DualWriteStorage, folder: str) -> None:
    for number in range(40):
        write(storage, f"{folder}{number}.txt", b"content")
    stop = never_stop()
    report = run(storage, folder, lambda result: stop.ask(), stop, workers=2)
    assert report.interrupted
    assert not report.complete
    assert 0 < report.files < 40
    assert report.files == len(on_s3(storage, folder))
    assert report.s3_only == 0
    assert run(storage, folder).files == 40
    assert_sides_equal(storage, folder)


@pytest.mark.django_db
def test_certified_row_is_set_by_a_complete_full_run_only(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = make_proxied("dual")

    def certified() -> bool:
        return StorageState.objects.filter(alias="default", certified_at__isnull=False).exists()

    write(storage, "a.txt", b"content")
    run(storage, "a")
    run(storage, dry_run=True)
    assert not StorageState.objects.exists()
    proxy.fail(Status(403), method="PUT", key="a.txt")
    os.mkfifo(os.path.join(storage.location, "pipe"))
    assert not run(storage).complete
    assert not certified()
    os.unlink(os.path.join(storage.location, "pipe"))
    assert run(storage).complete
    assert certified()
    state = StorageState.objects.get()
    assert (state.phase, state.volume_id) == ("dual", storage.pair.journal.volume_id)
    write(storage, "a.txt", b"another version")
    run(storage, stop=(stopped := never_stop()), on_result=lambda result: stopped.ask())
    assert not certified()


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
def test_refused_where_s3_is_the_truth(lab: Lab, phase: str) -> None:
    with pytest.raises(RefusedError, match="S3 is the truth"):
        run(lab.storage(phase))


def test_root_that_is_not_there(make_storage: MakeStorage, tmp_path: Path) -> None:
    storage = make_storage("dual")
    probe(storage.pair)
    storage.pair.local.root = str(tmp_path / "nowhere")
    storage.location = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="mounted"):
        run(storage, dry_run=True)
