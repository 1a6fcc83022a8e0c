"""The steps that the code takes are those of core/steps.py, of which the model checker builds its processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import TemporaryUploadedFile

from django_dualstorage.core import steps
from django_dualstorage.core.report import Outcome
from django_dualstorage.core.steps import Step
from django_dualstorage.exceptions import S3Error
from django_dualstorage.hints import Kind
from django_dualstorage.operations.probe import probe
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, client_of, key, put_object
from tests.support.proxy import FaultProxy, Refused

BOTH = ["mirror", "dual", "dual-strict", "s3-primary"]
QUEUING = ["mirror", "dual"]
RAISING = ["dual-strict", "s3-primary"]


def observed(storage: DualWriteStorage) -> list[Step]:
    """The list into which the storage announces its steps from now on."""
    taken: list[Step] = []
    storage.pair.observe = taken.append
    return taken


def reconciled(storage: DualWriteStorage, name: str) -> Outcome:
    return reconcile(storage.pair, storage.policy, name, now=time.time()).outcome


@pytest.mark.parametrize("conditions", [False, True], ids=["unprobed", "conditional"])
@pytest.mark.parametrize("phase", BOTH)
def test_save_and_delete_in_phases_with_two_sides(make_storage: MakeStorage, phase: str, conditions: bool) -> None:
    storage = make_storage(phase, allow_overwrite=True)
    creating = make_storage(phase)
    if conditions:
        assert probe(storage.pair)
    for one in (creating, storage):  # a new file, then the same name over it
        taken = observed(one)
        assert one.save("a.txt", ContentFile(b"content")) == "a.txt"
        assert tuple(taken) == steps.SAVE
    taken = observed(storage)
    storage.delete("a.txt")
    assert tuple(taken) == steps.DELETE


@pytest.mark.parametrize("phase", BOTH)
def test_save_of_an_upload_that_lies_in_a_file(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    taken = observed(storage)
    with TemporaryUploadedFile("a.txt", "text/plain", 7, None) as upload:
        upload.write(b"content")
        upload.seek(0)
        storage.save("a.txt", upload)
    assert tuple(taken) == steps.SAVE


@pytest.mark.parametrize("phase", BOTH)
def test_write_through_an_opened_file(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    taken = observed(storage)
    with storage.open("a.txt", "wb") as file:
        file.write(b"content")
        assert taken == []
    assert tuple(taken) == steps.SAVE


def test_save_and_delete_on_the_disk_alone(make_storage: MakeStorage) -> None:
    for overwrite in (False, True):
        storage = make_storage("filesystem", allow_overwrite=overwrite)
        taken = observed(storage)
        storage.save("a.txt", ContentFile(b"content"))
        assert tuple(taken) == steps.SAVE_LOCAL
    taken = observed(storage)
    storage.delete("a.txt")
    assert tuple(taken) == steps.DELETE_LOCAL


def test_save_and_delete_on_s3_alone(make_storage: MakeStorage) -> None:
    for overwrite in (False, True):
        storage = make_storage("s3", allow_overwrite=overwrite)
        taken = observed(storage)
        storage.save("a.txt", ContentFile(b"content"))
        # The bytes are gathered by the storage, in a temporary file of the system.
        assert (Step.STAGE, *taken) == steps.SAVE_S3
    taken = observed(storage)
    storage.delete("a.txt")
    assert tuple(taken) == steps.DELETE_S3


@pytest.mark.parametrize("phase", QUEUING)
def test_deferred_save_and_delete(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase, s3_writes="deferred")
    taken = observed(storage)
    storage.save("a.txt", ContentFile(b"content"))
    assert tuple(taken) == steps.SAVE_DEFERRED
    taken = observed(storage)
    storage.delete("a.txt")
    assert tuple(taken) == steps.DELETE_DEFERRED


@pytest.mark.parametrize("phase", RAISING)
def test_deferred_writes_are_not_deferred_where_errors_are_raised(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase, s3_writes="deferred")
    taken = observed(storage)
    storage.save("a.txt", ContentFile(b"content"))
    assert tuple(taken) == steps.SAVE


@pytest.mark.parametrize("phase", QUEUING)
def test_queued_save_and_delete_leave_the_hint(make_proxied: MakeStorage, proxy: FaultProxy, phase: str) -> None:
    storage = make_proxied(phase)
    proxy.fail(Refused(), times=None)
    taken = observed(storage)
    storage.save("a.txt", ContentFile(b"content"))
    # In dual the question whether S3 has the name fails before the PUT.
    assert [step for step in taken if step is not Step.PUT] == [
        step for step in steps.SAVE if step not in (Step.PUT, Step.CLEAR)
    ]
    taken = observed(storage)
    storage.delete("a.txt")
    assert tuple(taken) == steps.DELETE[:-1]


@pytest.mark.parametrize("phase", RAISING)
def test_raised_save_and_delete_stop_before_the_commit(
    make_proxied: MakeStorage, proxy: FaultProxy, phase: str
) -> None:
    storage = make_proxied(phase, allow_overwrite=True)
    storage.save("a.txt", ContentFile(b"old"))
    proxy.fail(Refused(), times=None)
    taken = observed(storage)
    with pytest.raises(S3Error):
        storage.save("a.txt", ContentFile(b"content"))
    assert tuple(taken) == steps.SAVE[: steps.SAVE.index(Step.COMMIT)]
    taken = observed(storage)
    with pytest.raises(S3Error):
        storage.delete("a.txt")
    assert tuple(taken) == steps.DELETE[: steps.DELETE.index(Step.UNLINK)]


def test_taken_name_ends_one_operation_and_begins_another(make_storage: MakeStorage, media_root: Path) -> None:
    storage = make_storage("dual")
    put_object(storage, "a.txt", b"somebody's")
    taken = observed(storage)
    name = storage.save("a.txt", ContentFile(b"content"))
    assert name != "a.txt"
    cut = steps.SAVE.index(Step.PUT)
    again = tuple(step for step in steps.SAVE if step is not Step.STAGE)
    assert tuple(taken) == (*steps.SAVE[:cut], Step.CLEAR, *again)


@pytest.mark.parametrize("phase", ["filesystem", "mirror", "dual", "dual-strict"])
def test_reconcile_where_the_disk_is_the_truth(make_storage: MakeStorage, media_root: Path, phase: str) -> None:
    storage = make_storage(phase)
    client, bucket = client_of(storage)
    path = media_root / "a.txt"
    path.write_bytes(b"content")

    taken = observed(storage)
    assert reconciled(storage, "a.txt") is Outcome.UPLOADED
    assert tuple(taken) == steps.RECONCILE_PUT

    taken = observed(storage)
    assert reconciled(storage, "a.txt") is Outcome.CERTIFIED
    assert tuple(taken) == steps.RECONCILE_NOTHING

    path.write_bytes(b"another")
    os.utime(path, ns=(1, 1))
    taken = observed(storage)
    assert reconciled(storage, "a.txt") is Outcome.REPLACED
    assert tuple(taken) == steps.RECONCILE_PUT

    client.put_object(Bucket=bucket, Key=key(storage, "a.txt"), Body=b"another")
    taken = observed(storage)
    assert reconciled(storage, "a.txt") is Outcome.ADOPTED
    assert tuple(taken) == steps.RECONCILE_PUT

    path.unlink()
    storage.pair.journal.announce(Kind.DELETE, "a.txt", phase=phase).leave()
    taken = observed(storage)
    assert reconciled(storage, "a.txt") is Outcome.DELETED
    assert tuple(taken) == steps.RECONCILE_DELETE

    taken = observed(storage)
    assert reconciled(storage, "a.txt") is Outcome.NOTHING
    assert tuple(taken) == steps.RECONCILE_NOTHING


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
def test_reconcile_where_s3_is_the_truth_never_writes_to_s3(
    make_storage: MakeStorage, media_root: Path, phase: str
) -> None:
    storage = make_storage(phase)
    put_object(storage, "a.txt", b"content")
    for outcome in (Outcome.BROUGHT_HOME, Outcome.BROUGHT_HOME):  # an object without a stamp is never certified
        taken = observed(storage)
        assert reconciled(storage, "a.txt") is outcome
        assert tuple(taken) == steps.RECONCILE_HOME
    (media_root / "b.txt").write_bytes(b"remainder")
    taken = observed(storage)
    assert reconciled(storage, "b.txt") is Outcome.QUARANTINED
    assert tuple(taken) == steps.RECONCILE_QUARANTINE
    taken = observed(storage)
    assert reconciled(storage, "b.txt") is Outcome.NOTHING
    assert tuple(taken) == steps.RECONCILE_NOTHING


@pytest.mark.parametrize("phase", ["dual", "dual-strict", "s3-primary"])
def test_overwrite_of_a_file_that_only_s3_has(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase, allow_overwrite=True)
    assert probe(storage.pair)
    put_object(storage, "a.txt", b"only here")
    taken = observed(storage)
    assert storage.save("a.txt", ContentFile(b"content")) == "a.txt"
    assert tuple(taken) == steps.SAVE_OVER_S3_ONLY
    assert_sides_equal(storage)


@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_delete_of_a_file_that_only_s3_has(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    put_object(storage, "a.txt", b"only here")
    taken = observed(storage)
    storage.delete("a.txt")
    assert tuple(taken) == (steps.DELETE if phase == "dual" else steps.DELETE_STRICT_S3_ONLY)
    assert_sides_equal(storage)
