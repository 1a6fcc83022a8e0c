"""Backfill beside a site, and beside programs, that write to the same files."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core.report import Outcome
from django_dualstorage.core.steps import Step
from django_dualstorage.operations import backfill as module
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import assert_sides_equal, on_s3, repaired
from tests.support.backfills import counts, run, write
from tests.support.lab import Lab, seen


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


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("operation", ["save-new", "overwrite", "delete", "delete-and-save"])
def test_site_that_writes_between_the_listing_and_the_copy(
    lab: Lab, folder: str, operation: str, conditions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = lab.storage("dual", allow_overwrite=True)
    monkeypatch.setattr(storage.pair.s3, "_conditional", lambda identity: conditions)
    monkeypatch.setattr(module, "probe", lambda pair: conditions)
    name = f"{folder}a.txt"
    if operation != "save-new":
        write(storage, name, b"old")
    list_all = storage.pair.s3.list_all

    def listed_too_early(prefix: str) -> list[Any]:
        found = list(list_all(prefix))
        if operation.startswith("delete"):
            storage.delete(name)
        if operation != "delete":
            storage.save(name, ContentFile(b"new"))
        return found

    monkeypatch.setattr(storage.pair.s3, "list_all", listed_too_early)
    report = run(storage, folder, clock=lambda: 4e9)
    assert seen(storage, name) == (None if operation == "delete" else b"new")
    assert report.complete
    repaired(storage)
    assert_sides_equal(storage, folder)


def test_file_written_to_while_it_is_copied_is_copied_again(storage: DualWriteStorage, folder: str) -> None:
    path = write(storage, f"{folder}a.txt", b"first")
    versions = iter([b"second", b"third"])

    def rewrite(step: Step) -> None:
        if step is Step.PUT and (content := next(versions, None)):
            path.write_bytes(content)

    storage.pair.observe = rewrite
    assert counts(run(storage, folder)) == {"replaced": 1}
    assert on_s3(storage, folder)[f"{folder}a.txt"].content == b"third"
    assert_sides_equal(storage, folder)


def test_file_written_to_all_the_time_is_reported_and_still_read_right(storage: DualWriteStorage, folder: str) -> None:
    name = f"{folder}a.txt"
    path = write(storage, name, b"0")

    def rewrite(step: Step) -> None:
        if step is Step.PUT:
            path.write_bytes(os.urandom(20))

    storage.pair.observe = rewrite
    report = run(storage, folder)
    assert [(problem.name, problem.outcome) for problem in report.problems] == [(name, Outcome.CHANGED)]
    storage.pair.observe = lambda step: None
    assert seen(storage, name) == path.read_bytes()
    assert repaired(storage).complete
    assert_sides_equal(storage, folder)


@pytest.mark.parametrize("step", [Step.LOCK, Step.PUT])
def test_file_that_vanishes_while_the_command_runs(storage: DualWriteStorage, folder: str, step: Step) -> None:
    path = write(storage, f"{folder}a.txt", b"content")

    def remove(taken: Step) -> None:
        if taken is step:
            path.unlink(missing_ok=True)

    storage.pair.observe = remove
    report = run(storage, folder)
    assert [problem.outcome for problem in report.problems] == [Outcome.VANISHED]
    # What was sent already is not taken for a file that only S3 has, and removed.
    assert seen(storage, f"{folder}a.txt") is None
    repaired(storage)
    assert_sides_equal(storage, folder)


def test_real_writer_beside_the_run(storage: DualWriteStorage, folder: str) -> None:
    """Threads that save, overwrite and delete through the storage while backfill goes over the same names."""
    names = [f"{folder}{number}.txt" for number in range(6)]
    for name in names:
        write(storage, name, b"before")
    done = threading.Event()

    def site(number: int) -> None:
        for turn in range(12):
            for name in names[number::2]:
                if (turn + number) % 3:
                    storage.save(name, ContentFile(b"%d %d" % (number, turn)))
                else:
                    storage.delete(name)

    writers = [threading.Thread(target=site, args=(number,)) for number in range(2)]
    for writer in writers:
        writer.start()
    while not done.is_set():
        report = run(storage, folder, clock=lambda: 4e9)
        assert {problem.outcome for problem in report.problems} <= {Outcome.VANISHED}
        if not any(writer.is_alive() for writer in writers):
            done.set()
    repaired(storage)
    run(storage, folder, clock=lambda: 4e9)
    assert_sides_equal(storage, folder)
