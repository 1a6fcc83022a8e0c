"""Backfill's modes: what it asks when much is known, what it believes and takes, in which order, and the way back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.core.selection import Rule, Selection
from django_dualstorage.hints import Kind
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.comparison import inventory_of
from django_dualstorage.operations.copying import Belief
from django_dualstorage.operations.engines import Limits
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.operations.ordering import Order
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import assert_sides_equal, head_object, never_stop, on_s3, put_object, repaired
from tests.support.backfills import counts, run, write
from tests.support.lab import Lab, seen
from tests.support.proxy import HeldAndLate, LostAnswer, Status


@pytest.fixture
def storage(lab: Lab) -> Iterator[DualWriteStorage]:
    storage = lab.storage("dual", allow_overwrite=True)
    if not storage.pair.s3.honours_conditions:
        probe(storage.pair)
    lab.wire.clear()
    yield storage
    lab.wire.clear_faults()


@pytest.fixture
def folder(lab: Lab) -> str:
    """A folder of this test alone; ends with a slash."""
    return os.path.dirname(lab.name()) + "/"


def requests(lab: Lab) -> list[str]:
    """The methods of the requests about objects, not of listings."""
    return [request.method for request in lab.wire.requests if request.key]


def test_counting_ahead_ends_when_it_is_told_though_it_takes_next_to_nothing(
    storage: DualWriteStorage, folder: str
) -> None:
    for number in range(2500):
        Path(storage.location, folder).mkdir(exist_ok=True)
        Path(storage.location, folder, f"{number}.tmp").touch()
    asked = 0

    def ended() -> bool:
        nonlocal asked
        asked += 1
        return False

    only = Backfill(storage, prefix=folder, selection=Selection((Rule(include=True, glob="*.jpg"),)))
    assert only.count(ended) == 0
    assert asked == 3
    assert only.count(lambda: True) is None


# -- the inventory -----------------------------------------------------------------------------------------------------


def test_second_run_asks_about_nothing_that_the_first_has_written(
    storage: DualWriteStorage, folder: str, lab: Lab
) -> None:
    for number in range(5):
        write(storage, f"{folder}{number}.txt")
    put_object(storage, f"{folder}0.txt", b"content")  # to be adopted
    put_object(storage, f"{folder}1.txt", b"another")  # to be replaced
    assert counts(run(storage, folder)) == {"uploaded": 3, "adopted": 1, "replaced": 1}
    lab.wire.clear()
    counted: list[tuple[int, int]] = []
    results: list[FileResult] = []
    report = run(storage, folder, results.append, on_counted=lambda files, size: counted.append((files, size)))
    assert counts(report) == {"certified": 5}
    assert counted == [(5, 35)]
    assert not results
    assert requests(lab) == []


def test_what_a_head_has_shown_is_known_the_next_time(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    storage.save(f"{folder}a.txt", ContentFile(b"content"))
    for expected in (["HEAD"], []):
        lab.wire.clear()
        assert counts(run(storage, folder)) == {"certified": 1}
        assert requests(lab) == expected


def test_lost_inventory_costs_a_head_and_no_upload(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    write(storage, f"{folder}a.txt")
    run(storage, folder)
    os.unlink(inventory_of(storage.pair).path)
    lab.wire.clear()
    assert counts(run(storage, folder)) == {"certified": 1}
    assert requests(lab) == ["HEAD"]


@pytest.mark.parametrize("change", ["local", "remote", "gone", "touched"])
def test_known_file_that_has_changed_is_doubted(storage: DualWriteStorage, folder: str, lab: Lab, change: str) -> None:
    name = f"{folder}a.txt"
    path = write(storage, name)
    run(storage, folder)
    if change == "local":
        write(storage, name, b"CONTENT", mtime=2_000_000_000)
    elif change == "touched":
        os.utime(path, ns=(5, 5))
    elif change == "remote":
        put_object(storage, name, b"CONTENT")
    else:
        lab.storage("s3").delete(name)
    assert counts(run(storage, folder)) == {"uploaded" if change == "gone" else "replaced": 1}
    assert_sides_equal(storage, folder)


def test_known_file_with_a_hint_is_reconciled(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    for name in "ab":
        write(storage, f"{folder}{name}.txt")
    run(storage, folder)
    storage.pair.journal.announce(Kind.SAVE, f"{folder}a.txt", phase="dual").leave()
    lab.wire.clear()
    assert counts(run(storage, folder, clock=lambda: 4e9)) == {"certified": 2}
    assert requests(lab) == ["HEAD"]
    assert not storage.pair.journal.count()


@pytest.mark.parametrize("fault", [LostAnswer(), Status(503)], ids=["lost", "503"])
def test_unclean_write_is_not_known(
    storage: DualWriteStorage, folder: str, lab: Lab, fault: LostAnswer | Status
) -> None:
    write(storage, f"{folder}a.txt")
    before = len(inventory_of(storage.pair))
    lab.wire.fail(fault, method="PUT", key="a.txt")
    assert counts(run(storage, folder)) == {"failed": 1}
    assert len(inventory_of(storage.pair)) == before
    lab.wire.clear_faults()
    assert run(storage, folder, clock=lambda: 4e9).complete
    repaired(storage)
    assert_sides_equal(storage, folder)


def test_dry_run_makes_no_inventory_and_uses_one(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    path = inventory_of(storage.pair).path
    write(storage, f"{folder}a.txt")
    run(storage, folder)
    lab.wire.clear()
    assert counts(run(storage, folder, dry_run=True)) == {"certified": 1}
    assert requests(lab) == []
    os.unlink(path)
    assert counts(run(storage, folder, dry_run=True)) == {"certified": 1}
    assert not os.path.exists(path)


def test_what_was_learned_is_noted_although_the_run_ends_with_an_error(
    storage: DualWriteStorage, folder: str, lab: Lab
) -> None:
    write(storage, f"{folder}a.txt")

    def fails(result: FileResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(storage, folder, fails)
    lab.wire.clear()
    assert counts(run(storage, folder)) == {"certified": 1}
    assert requests(lab) == []


# -- what it believes --------------------------------------------------------------------------------------------------


def test_size_believes_any_object_of_the_size(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    write(storage, f"{folder}same.txt", b"1234")
    put_object(storage, f"{folder}same.txt", b"abcd")
    write(storage, f"{folder}longer.txt", b"12345")
    put_object(storage, f"{folder}longer.txt", b"abcd")
    write(storage, f"{folder}missing.txt", b"1")
    for dry_run in (True, False):
        report = run(storage, folder, compare=Belief.SIZE, dry_run=dry_run)
        assert counts(report) == {"same-size": 1, "replaced": 1, "uploaded": 1}
    assert report.complete
    assert on_s3(storage, folder)[f"{folder}same.txt"].content == b"abcd"
    assert seen(storage, f"{folder}same.txt") == b"1234"  # no stamp, so no reader takes it
    assert counts(run(storage, folder)) == {"replaced": 1, "certified": 2}
    assert_sides_equal(storage, folder)


@pytest.mark.parametrize("known", [True, False])
def test_hash_finds_the_flipped_bit_under_an_equal_stamp(
    storage: DualWriteStorage, folder: str, lab: Lab, known: bool
) -> None:
    for name in ("good.txt", "bad.txt"):
        write(storage, f"{folder}{name}", b"content")
    run(storage, folder)
    metadata = head_object(storage, f"{folder}bad.txt")["Metadata"]
    put_object(storage, f"{folder}bad.txt", b"contenu", Metadata=metadata)
    if not known:
        os.unlink(inventory_of(storage.pair).path)
    assert counts(run(storage, folder)) == {"certified": 2}  # the stamp is believed
    assert counts(run(storage, folder, compare=Belief.HASH, dry_run=True)) == {"certified": 1, "replaced": 1}
    assert counts(run(storage, folder, compare=Belief.HASH)) == {"certified": 1, "replaced": 1}
    assert_sides_equal(storage, folder)


def test_hash_of_a_known_file_asks_nothing_where_the_etag_is_its_md5(
    storage: DualWriteStorage, folder: str, lab: Lab
) -> None:
    write(storage, f"{folder}a.txt", b"content")
    run(storage, folder)
    lab.wire.clear()
    assert counts(run(storage, folder, compare=Belief.HASH)) == {"certified": 1}
    assert requests(lab) == []


def test_hash_takes_a_locally_changed_file_with_an_old_time_for_what_it_is(
    storage: DualWriteStorage, folder: str
) -> None:
    write(storage, f"{folder}a.txt", b"content")
    run(storage, folder)
    write(storage, f"{folder}a.txt", b"CONTENT")  # same size, same time
    assert counts(run(storage, folder)) == {"certified": 1}
    assert counts(run(storage, folder, compare=Belief.HASH)) == {"replaced": 1}
    assert_sides_equal(storage, folder)


# -- which names, in which order, for how long -------------------------------------------------------------------------


def test_selection(storage: DualWriteStorage, folder: str) -> None:
    for name in ("a.jpg", "a.tmp", "b/c.jpg"):
        write(storage, folder + name)
    write(storage, f"{folder}new.jpg", mtime=5_000_000_000)
    selection = Selection([Rule(False, "*.tmp")])
    assert counts(run(storage, folder, selection=Selection(selection.rules, since_ns=4_000_000_000))) == {"uploaded": 1}
    assert counts(run(storage, folder, selection=Selection(names=[f"{folder}a.jpg", "x"]))) == {"uploaded": 1}
    report = run(storage, folder, selection=selection)
    assert counts(report) == {"certified": 2, "uploaded": 1}
    assert report.s3_only == 0
    assert sorted(on_s3(storage, folder)) == [f"{folder}{name}" for name in ("a.jpg", "b/c.jpg", "new.jpg")]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.NEWEST, "cba"),
        (Order.OLDEST, "abc"),
        (Order.LARGEST, "bac"),
        (Order.SMALLEST, "cab"),
        (Order.NAME, "abc"),
    ],
)
def test_order(storage: DualWriteStorage, folder: str, order: Order, expected: str) -> None:
    for number, (name, size) in enumerate({"a": 2, "b": 3, "c": 1}.items(), 1):
        write(storage, f"{folder}{name}", b"x" * size, mtime=number * 1_000_000_000)
    os.mkfifo(os.path.join(storage.location, folder, "pipe"))
    put_object(storage, f"{folder}only", b"")
    results: list[FileResult] = []
    report = run(storage, folder, results.append, order=order, workers=1)
    assert [result.name.removeprefix(folder) for result in results] == ["pipe", *expected]
    assert report.s3_only == 1


def test_time_that_is_over_ends_the_run_and_the_next_one_goes_on(
    storage: DualWriteStorage, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        write(storage, f"{folder}{number}.txt")
    late = False
    original = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: original() + 3600 * late)

    def on_result(result: FileResult) -> None:
        nonlocal late
        late = True

    report = run(storage, folder, on_result, workers=2, limits=Limits(duration=60))
    assert (report.out_of_time, report.interrupted, report.complete) == (True, False, False)
    assert 0 < report.files < 40
    assert report.as_json()["out_of_time"]
    late = False
    report = run(storage, folder, limits=Limits(duration=60))
    assert (report.out_of_time, report.files) == (False, 40)


@pytest.mark.parametrize("limits", [None, Limits(duration=1e-9)])
def test_run_that_ends_while_it_lists_has_done_nothing(
    storage: DualWriteStorage, folder: str, limits: Limits | None
) -> None:
    write(storage, f"{folder}a.txt")
    put_object(storage, f"{folder}b.txt", b"")
    stop = never_stop()
    if limits is None:
        stop.ask()
    report = run(storage, folder, stop=stop, limits=limits)
    assert (report.interrupted, report.out_of_time) == (limits is None, limits is not None)
    assert (report.files, report.s3_only, report.complete) == (0, 0, False)


def test_plan_has_an_estimate_once_a_run_has_shown_the_speed(storage: DualWriteStorage, folder: str) -> None:
    inventory = Path(inventory_of(storage.pair).path)
    inventory.unlink(missing_ok=True)
    for number in range(20):
        write(storage, f"{folder}a/{number}.txt")
        write(storage, f"{folder}b/{number}.txt")
    assert run(storage, folder, dry_run=True).estimate is None
    ran = run(storage, f"{folder}a/")
    report = run(storage, folder, dry_run=True)
    assert counts(report) == {"certified": 20, "uploaded": 20}
    assert report.estimate == pytest.approx(ran.seconds)


# -- to the disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["mirror", "dual", "dual-strict", "s3-primary", "s3"])
def test_reverse_brings_home_what_only_s3_has(lab: Lab, folder: str, phase: str) -> None:
    lab.storage("s3").save(f"{folder}sub/saved.txt", ContentFile(b"saved"))
    storage = lab.storage(phase, allow_overwrite=True)
    put_object(storage, f"{folder}foreign.txt", b"foreign")
    write(storage, f"{folder}local.txt", b"local")
    for dry_run in (True, False):
        report = run(storage, folder, reverse=True, dry_run=dry_run)
        assert counts(report) == {"brought-home": 2}
        assert (report.local_only, report.s3_only, report.complete) == (1, 0, True)
        assert report.bytes_moved == len(b"savedforeign")
        assert os.path.exists(os.path.join(lab.root, folder, "foreign.txt")) != dry_run
    assert Path(lab.root, folder, "sub/saved.txt").read_bytes() == b"saved"
    assert not storage.pair.journal.count()
    lab.wire.clear()
    assert counts(run(storage, folder, reverse=True)) == {"certified": 2}
    assert requests(lab) == ["HEAD"]  # of the foreign object, which has no stamp; its ETag is the MD5 of its bytes


def test_version_that_came_home_is_certified(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    lab.storage("s3").save(f"{folder}a.txt", ContentFile(b"content"))
    run(storage, folder, reverse=True)
    lab.wire.clear()
    assert counts(run(storage, folder)) == {"certified": 1}
    assert counts(run(storage, folder, reverse=True)) == {"certified": 1}
    assert requests(lab) == []
    assert_sides_equal(storage, folder)


def test_reverse_leaves_the_disk_alone_where_it_is_the_truth(storage: DualWriteStorage, folder: str) -> None:
    write(storage, f"{folder}a.txt", b"local")
    put_object(storage, f"{folder}a.txt", b"remote, and newer")
    for dry_run in (True, False):
        report = run(storage, folder, reverse=True, dry_run=dry_run)
        assert counts(report) == {"kept": 1}
        assert "without --reverse" in report.problems[0].detail
    assert seen(storage, f"{folder}a.txt") == b"local"


def test_reverse_replaces_an_older_local_file_and_never_a_newer_one_where_s3_is_the_truth(
    lab: Lab, folder: str
) -> None:
    storage = lab.storage("s3-primary", allow_overwrite=True)
    for name in ("older.txt", "newer.txt"):
        storage.save(f"{folder}{name}", ContentFile(b"on S3"))
    write(storage, f"{folder}older.txt", b"older", mtime=1_000_000_000)
    write(storage, f"{folder}newer.txt", b"newer", mtime=4_000_000_000 * 1_000_000_000)
    for dry_run in (True, False):
        report = run(storage, folder, reverse=True, dry_run=dry_run)
        assert counts(report) == {"brought-home": 1, "kept": 1}
    assert Path(lab.root, folder, "older.txt").read_bytes() == b"on S3"
    assert Path(lab.root, folder, "newer.txt").read_bytes() == b"newer"


def test_reverse_does_not_replace_what_is_written_while_the_object_is_on_its_way(
    lab: Lab, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = lab.storage("s3-primary", allow_overwrite=True)
    path = write(storage, f"{folder}a.txt", b"old")
    put_object(storage, f"{folder}a.txt", b"what S3 has")
    stage = storage.pair.local.stage

    def then_write(*arguments: Any, **keywords: Any) -> Any:
        staged = stage(*arguments, **keywords)
        path.write_bytes(b"newer, and behind the storage's back")
        return staged

    monkeypatch.setattr(storage.pair.local, "stage", then_write)
    report = run(storage, folder, reverse=True)
    assert counts(report) == {"changed": 1}
    assert path.read_bytes() == b"newer, and behind the storage's back"
    monkeypatch.undo()
    storage.delete(f"{folder}a.txt")


def test_reverse_does_not_bring_home_a_damaged_object(lab: Lab, folder: str) -> None:
    storage = lab.storage("s3-primary")
    put_object(storage, f"{folder}a.txt", b"half", Metadata={"ds-stamp": "9999:1000000000123456789"})
    report = run(storage, folder, reverse=True)
    assert counts(report) == {"failed": 1}
    assert "its stamp says 9,999" in report.problems[0].detail
    assert not storage.pair.local.exists(f"{folder}a.txt")
    storage.delete(f"{folder}a.txt")


def test_reverse_brings_nothing_back_that_was_deleted(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    storage.save(f"{folder}deleted.txt", ContentFile(b"content"))
    lab.wire.fail(Status(503), method="DELETE", key="deleted.txt")
    storage.delete(f"{folder}deleted.txt")
    lab.wire.clear_faults()
    for dry_run in (True, False):
        assert counts(run(storage, folder, reverse=True, dry_run=dry_run)) == {"nothing": 1}
    assert seen(storage, f"{folder}deleted.txt") is None
    repaired(storage)
    assert_sides_equal(storage, folder)


def test_reverse_is_refused_where_deletions_do_not_reach_s3(lab: Lab) -> None:
    with pytest.raises(RefusedError, match="mirror"):
        run(lab.storage("filesystem"), reverse=True)


def test_reverse_writes_nothing_outside_media_root(
    storage: DualWriteStorage, folder: str, lab: Lab, tmp_path: Path
) -> None:
    put_object(storage, f"{folder}link/a.txt", b"content")
    put_object(storage, f"{folder}taken", b"content")
    put_object(storage, f"{folder}file/a.txt", b"content")
    Path(lab.root, folder).mkdir()
    Path(lab.root, folder, "link").symlink_to(tmp_path)
    Path(lab.root, folder, "taken").mkdir()
    write(storage, f"{folder}file")
    report = run(storage, folder, reverse=True)
    assert {problem.name.removeprefix(folder): problem.outcome for problem in report.problems} == {
        "link/a.txt": Outcome.SYMLINK,
        "taken": Outcome.KEPT,
        "file/a.txt": Outcome.FAILED,
    }
    assert list(tmp_path.iterdir()) == []
    assert not storage.pair.journal.count()


@pytest.mark.parametrize("fault", [Status(503), HeldAndLate()], ids=["503", "late"])
def test_reverse_that_fails_leaves_nothing_half(
    storage: DualWriteStorage, folder: str, lab: Lab, fault: Status | HeldAndLate
) -> None:
    lab.storage("s3").save(f"{folder}a.txt", ContentFile(b"content"))
    lab.wire.fail(fault, method="GET", key="a.txt")
    assert counts(run(storage, folder, reverse=True)) == {"failed": 1}
    assert not list(Path(lab.root, folder).glob("*")) if Path(lab.root, folder).exists() else True
    lab.wire.clear_faults()
    assert run(storage, folder, reverse=True).complete
    assert seen(storage, f"{folder}a.txt") == b"content"


def test_options_that_do_not_go_together(storage: DualWriteStorage) -> None:
    with pytest.raises(ValueError, match="--compare hash"):
        run(storage, reverse=True, compare=Belief.HASH)
    with pytest.raises(ValueError, match="--since"):
        run(storage, reverse=True, selection=Selection(since_ns=1))
    with pytest.raises(ValueError, match="--order"):
        run(storage, reverse=True, order=Order.NEWEST)
