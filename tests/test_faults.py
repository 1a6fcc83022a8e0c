"""Each write in each phase over a wire that fails in each way, held against the table of the design."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.exceptions import S3Error
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import assert_sides_equal, on_s3, repaired
from tests.support.lab import PATIENT, WRITE_FAULTS, Lab, seen
from tests.support.proxy import HeldAndLate, Refused, Status

QUEUING = ("mirror", "dual")
LOCAL_TRUTH = ("mirror", "dual", "dual-strict")
PHASES = ("mirror", "dual", "dual-strict", "s3-primary", "s3")


OPERATIONS = {
    # name: (the method on the wire, content before, content after)
    "save-new": ("PUT", None, b"new content"),
    "overwrite": ("PUT", b"old", b"new content"),
    "overwrite-same-size": ("PUT", b"old content", b"new content"),
    "delete": ("DELETE", b"old", None),
}
CASES = [
    pytest.param(operation, broken, id=f"{operation}-{broken}")
    for operation in OPERATIONS
    for broken, wrong in WRITE_FAULTS.items()
    if operation != "overwrite-same-size" or wrong.patience == PATIENT  # waiting for silence costs time
]


@pytest.fixture(autouse=True)
def _healed(lab: Lab) -> Iterator[None]:
    yield
    lab.wire.clear_faults()
    lab.wire.drop_held()
    lab.wire.clear()
    repaired(lab.storage("dual"))  # after a failure only: what it left must not fail the others


def carry_out(storage: DualWriteStorage, operation: str, name: str) -> None:
    after = OPERATIONS[operation][2]
    if after is None:
        storage.delete(name)
    else:
        assert storage.save(name, ContentFile(after)) == name


def read_while_gets_fail(lab: Lab, storage: DualWriteStorage, name: str) -> bytes | None:
    lab.wire.fail(Refused(), method="GET", times=None)
    try:
        return seen(storage, name)
    finally:
        lab.wire.clear_faults()


@pytest.mark.parametrize(("operation", "broken"), CASES)
@pytest.mark.parametrize("phase", PHASES)
def test_write_over_a_broken_wire(lab: Lab, phase: str, operation: str, broken: str) -> None:
    method, before, after = OPERATIONS[operation]
    wrong = WRITE_FAULTS[broken]
    name = lab.name()
    overwrite = operation != "save-new"
    storage = lab.storage(phase, patience=wrong.patience, allow_overwrite=overwrite)
    reader = lab.storage(phase)
    if before is not None:
        lab.storage(phase, allow_overwrite=True).save(name, ContentFile(before))
    lab.wire.fail(wrong.fault, method=method, key=name)

    # What the caller is told.
    if wrong.unclean and phase not in QUEUING:
        with pytest.raises(S3Error) as failure:
            carry_out(storage, operation, name)
        assert isinstance(failure.value, OSError)
    else:
        carry_out(storage, operation, name)
    lab.wire.clear_faults()

    # What readers see.
    if not wrong.unclean or phase in QUEUING:
        truth = after
    elif phase == "dual-strict":
        truth = before
    else:
        truth = after if wrong.applied else before  # what S3 has
    assert seen(reader, name) == truth
    if phase in LOCAL_TRUTH:
        assert read_while_gets_fail(lab, reader, name) == truth

    # What is left to repair.
    if phase == "s3":
        assert not reader.pair.journal.has_hint(name)
        return
    assert reader.pair.journal.count() == int(wrong.unclean)
    if wrong.unclean:
        report = repaired(reader, grace_over=False)
        assert report.complete
        assert (report.files, report.pending, reader.pair.journal.count()) == (1, 1, 1)
        assert seen(reader, name) == truth

    # What lands late is not believed while the disk is the truth, and repaired in any case.
    if wrong.late:
        assert lab.wire.release() in ([200], [204])
        truth = truth if phase in LOCAL_TRUTH else after
        assert seen(reader, name) == truth
    if wrong.unclean:
        assert repaired(reader).complete
    assert seen(reader, name) == truth
    assert_sides_equal(reader, name)


@pytest.mark.parametrize("operation", ["save-new", "overwrite", "delete"])
@pytest.mark.parametrize("phase", LOCAL_TRUTH)
def test_late_request_that_lands_after_a_repair_that_trusted_too_early(lab: Lab, phase: str, operation: str) -> None:
    """A grace period set too short: readers still get the truth, and the next operation or backfill mends S3."""
    method, before, after = OPERATIONS[operation]
    storage = lab.storage(phase, allow_overwrite=True)
    name = lab.name()
    if before is not None:
        storage.save(name, ContentFile(before))
    lab.wire.fail(HeldAndLate(), method=method, key=name)
    if phase in QUEUING:
        carry_out(storage, operation, name)
    else:
        with pytest.raises(S3Error):
            carry_out(storage, operation, name)
    truth = seen(storage, name)
    # The application goes on: S3 moves to a third version before the late request lands.
    storage.save(name, ContentFile(b"third"))
    assert seen(storage, name) == b"third"
    lab.wire.release()
    assert seen(storage, name) == b"third"
    assert truth in (before, after)
    repaired(storage)
    assert_sides_equal(storage, name)
    assert on_s3(storage, name)[name].content == b"third"


@pytest.mark.parametrize("phase", QUEUING)
def test_writes_queue_up_and_one_repair_brings_the_last(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase, allow_overwrite=True)
    name = lab.name()
    lab.wire.fail(Status(503), times=None, method="PUT")
    lab.wire.fail(Status(503), times=None, method="DELETE")
    for content in (b"one", b"two", b"three"):
        storage.save(name, ContentFile(content))
        storage.delete(name)
        assert seen(storage, name) is None
    storage.save(name, ContentFile(b"last"))
    lab.wire.clear_faults()
    assert storage.pair.journal.count() == 7
    assert seen(storage, name) == b"last"
    repaired(storage)
    assert_sides_equal(storage, name)
    assert seen(storage, name) == b"last"


def test_unanswered_question_whether_s3_has_the_name_queues_the_save(lab: Lab) -> None:
    storage = lab.storage("dual")
    name = lab.name()
    lab.wire.fail(Status(503), method="HEAD", key=name)
    assert storage.save(name, ContentFile(b"content")) == name
    assert lab.wire.count("PUT", name) == 0
    # Nothing was sent, so nothing can land and repair need not wait.
    assert repaired(storage, grace_over=False).pending == 0
    assert_sides_equal(storage, name)


def test_unanswered_question_whether_s3_has_the_name_fails_the_save_where_errors_are_raised(lab: Lab) -> None:
    for phase in ("dual-strict", "s3-primary", "s3"):
        storage = lab.storage(phase)
        name = lab.name()
        lab.wire.fail(Status(503), method="HEAD", key=name)
        with pytest.raises(S3Error):
            storage.save(name, ContentFile(b"content"))
        assert seen(storage, name) is None
        assert not storage.pair.journal.has_hint(name)


@pytest.mark.parametrize("broken", ["lost", "503", "late"])
def test_repair_whose_own_requests_fail_is_done_by_the_next(lab: Lab, broken: str) -> None:
    storage = lab.storage("dual", allow_overwrite=True)
    name = lab.name()
    lab.wire.fail(Status(503), method="PUT", key=name)
    storage.save(name, ContentFile(b"content"))
    lab.wire.fail(WRITE_FAULTS[broken].fault, method="PUT", key=name)
    report = repaired(storage)
    assert report.problem_count == 1
    assert "run the command again" in report.problems[0].detail
    assert seen(storage, name) == b"content"
    lab.wire.release()
    repaired(storage)
    assert_sides_equal(storage, name)


def test_repairs_that_keep_failing_do_not_fill_the_journal(lab: Lab) -> None:
    storage = lab.storage("dual", allow_overwrite=True)
    name = lab.name()
    lab.wire.fail(Status(503), method="PUT", key=name, times=None)
    storage.save(name, ContentFile(b"content"))
    counts = []
    for _ in range(4):
        repaired(storage)
        counts.append(storage.pair.journal.count())
    assert counts[-1] <= 2
    lab.wire.clear_faults()
    repaired(storage)
    assert_sides_equal(storage, name)
