"""Writes over a broken wire to files that only S3 has, and to names that S3 cannot have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.exceptions import S3Error
from tests.support.asserts import assert_sides_equal, put_object, repaired
from tests.support.lab import WRITE_FAULTS, Lab, seen
from tests.support.proxy import Status

QUEUING = ("mirror", "dual")
PHASES = ("mirror", "dual", "dual-strict", "s3-primary", "s3")


@pytest.fixture(autouse=True)
def _healed(lab: Lab) -> Iterator[None]:
    yield
    lab.wire.clear_faults()
    lab.wire.drop_held()
    lab.wire.clear()
    repaired(lab.storage("dual"))  # after a failure only: what it left must not fail the others


@pytest.mark.parametrize("broken", ["lost", "late"])
def test_delete_that_fails_does_not_bring_back_a_save_that_failed_before(lab: Lab, broken: str) -> None:
    """The caller was told that neither was done: the file was never there."""
    storage = lab.storage("dual-strict")
    name = lab.name()
    lab.wire.fail(WRITE_FAULTS[broken].fault, method="PUT", key=name)
    with pytest.raises(S3Error):
        storage.save(name, ContentFile(b"content"))
    lab.wire.release()
    assert seen(storage, name) is None
    lab.wire.fail(Status(503), method="DELETE", key=name)
    with pytest.raises(S3Error):
        storage.delete(name)
    assert seen(storage, name) is None
    repaired(storage)
    assert_sides_equal(storage, name)
    assert seen(storage, name) is None


@pytest.mark.parametrize("broken", WRITE_FAULTS)
@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_delete_of_a_file_that_only_s3_has(lab: Lab, phase: str, broken: str) -> None:
    wrong = WRITE_FAULTS[broken]
    storage, reader = lab.storage(phase, patience=wrong.patience), lab.storage(phase)
    name = lab.name()
    put_object(reader, name, b"old")
    lab.wire.fail(wrong.fault, method="DELETE", key=name)
    if wrong.unclean and phase == "dual-strict":
        with pytest.raises(S3Error):
            storage.delete(name)
        truth = b"old"
    else:
        storage.delete(name)
        truth = None
    lab.wire.clear_faults()
    assert seen(reader, name) == truth
    lab.wire.release()
    assert seen(reader, name) == truth
    repaired(reader)
    assert seen(reader, name) == truth
    assert_sides_equal(reader, name)


@pytest.mark.parametrize("broken", WRITE_FAULTS)
@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_overwrite_of_a_file_that_only_s3_has(lab: Lab, phase: str, broken: str) -> None:
    wrong = WRITE_FAULTS[broken]
    storage = lab.storage(phase, patience=wrong.patience, allow_overwrite=True)
    reader = lab.storage(phase)
    name = lab.name()
    put_object(reader, name, b"old")
    lab.wire.fail(wrong.fault, method="PUT", key=name)
    if wrong.unclean and phase == "dual-strict":
        with pytest.raises(S3Error):
            storage.save(name, ContentFile(b"new"))
        truth = b"old"
    else:
        assert storage.save(name, ContentFile(b"new")) == name
        truth = b"new"
    lab.wire.clear_faults()
    assert seen(reader, name) == truth
    lab.wire.release()
    assert seen(reader, name) == truth
    repaired(reader)
    assert seen(reader, name) == truth
    assert_sides_equal(reader, name)


@pytest.mark.parametrize("phase", PHASES)
def test_delete_of_a_name_that_s3_cannot_take(lab: Lab, phase: str) -> None:
    storage = lab.storage(phase)
    storage.delete("no\x01where.txt")
    if phase in QUEUING:
        storage.save("a\x01b.txt", ContentFile(b"content"))
        assert storage.pair.journal.count() == 1
        assert [problem.outcome.value for problem in repaired(storage).problems] == ["bad-name"]
        storage.delete("a\x01b.txt")
        assert repaired(storage).complete
    assert_sides_equal(storage, "a\x01")
