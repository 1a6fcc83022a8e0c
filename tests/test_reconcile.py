"""Reconcile, one name: what it does when somebody else is at the same object or file, and what a probe believes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from django_dualstorage import journal as journal_module
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.core.steps import Step
from django_dualstorage.exceptions import JournalError, S3TransientError
from django_dualstorage.hints import Kind
from django_dualstorage.journal import Journal
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.operations.probe import honours_conditions, probe
from django_dualstorage.protocol.operation import Locked
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, hint, on_s3, put_object, repaired
from tests.support.backfills import run, write
from tests.support.lab import Lab, seen
from tests.support.proxy import Fault, Refused, Sequence, Status


@pytest.fixture
def storage(lab: Lab) -> Iterator[DualWriteStorage]:
    storage = lab.storage("dual", allow_overwrite=True)
    if not storage.pair.s3.honours_conditions:
        probe(storage.pair)
    lab.wire.clear()
    yield storage
    storage.pair.observe = lambda step: None
    lab.wire.clear_faults()
    repaired(storage)


@pytest.fixture
def name(lab: Lab) -> str:
    return lab.name()


def reconciled(storage: DualWriteStorage, name: str) -> FileResult:
    return reconcile(storage.pair, storage.policy, name, now=time.time())


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("before", [None, b"an object", b"of the same size"])
def test_object_that_changes_after_the_look_is_looked_at_again(
    storage: DualWriteStorage, name: str, before: bytes | None, times: int
) -> None:
    write(storage, name, b"of the same size")
    if before is not None:
        put_object(storage, name, before)
    others = iter([b"by another tool", b"and again"][:times])

    def interfere(step: Step) -> None:
        if step is Step.PUT and (content := next(others, None)):
            put_object(storage, name, content)

    storage.pair.observe = interfere
    result = reconciled(storage, name)
    assert (result.outcome, result.clean) == (Outcome.REPLACED, True)
    assert_sides_equal(storage, name)


def test_object_that_changes_all_the_time_is_given_up(storage: DualWriteStorage, name: str) -> None:
    write(storage, name, b"content")

    def interfere(step: Step) -> None:
        if step is Step.PUT:
            put_object(storage, name, os.urandom(10))

    storage.pair.observe = interfere
    result = reconciled(storage, name)
    assert (result.outcome, result.clean) == (Outcome.FAILED, False)
    assert "run the command again" in result.detail
    storage.pair.observe = lambda step: None
    assert seen(storage, name) == b"content"
    assert reconciled(storage, name).outcome is Outcome.REPLACED
    repaired(storage)
    assert_sides_equal(storage, name)


def test_object_that_is_replaced_before_it_is_deleted_is_looked_at_again(storage: DualWriteStorage, name: str) -> None:
    put_object(storage, name, b"a remainder")
    hint(storage, name, Kind.DELETE)
    others = iter([b"another remainder"])

    def interfere(step: Step) -> None:
        if step is Step.DELETE and (content := next(others, None)):
            put_object(storage, name, content)

    storage.pair.observe = interfere
    assert reconciled(storage, name).outcome is Outcome.DELETED
    assert_sides_equal(storage, name)


def test_name_that_stays_locked_is_a_failure_of_that_name(lab: Lab, storage: DualWriteStorage, name: str) -> None:
    impatient = lab.storage("dual", lock_timeout=0)
    write(storage, name)
    with Locked(storage.pair, name):
        result = reconciled(impatient, name)
    assert (result.outcome, result.clean) == (Outcome.FAILED, False)
    assert "locked by another operation" in result.detail
    assert not storage.pair.journal.has_hint(name)


def test_journal_that_cannot_be_used_is_everybodys_failure(
    storage: DualWriteStorage, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, content: bytes) -> int:
        return len(content) - 1

    write(storage, name)
    monkeypatch.setattr(journal_module.os, "write", full)  # type: ignore[attr-defined]
    with pytest.raises(JournalError, match="must have room"):
        reconciled(storage, name)
    monkeypatch.undo()
    assert not storage.pair.journal.has_hint(name)


def test_read_only_journal_stops_writes_and_not_reads(make_storage: MakeStorage, media_root: Path) -> None:
    storage = make_storage("dual")
    (media_root / "a.txt").write_bytes(b"content")
    (media_root / ".dualstorage").write_bytes(b"in the way")
    assert seen(storage, "a.txt") == b"content"
    with pytest.raises(JournalError):
        storage.save("b.txt", ContentFile(b"content"))
    assert on_s3(storage) == {}


# -- what a backfill and a probe refuse to believe ---------------------------------------------------------------------


@pytest.mark.django_db
def test_empty_root_beside_a_full_bucket_is_refused(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    put_object(storage, "a.txt", b"content")
    with pytest.raises(RefusedError, match=r"no files, but S3 has 1 .* mounted"):
        run(storage)


def test_probe_sees_conditions_honoured_and_leaves_nothing(lab: Lab, storage: DualWriteStorage) -> None:
    before = set(on_s3(storage))
    assert honours_conditions(storage.pair)
    assert set(on_s3(storage)) == before


@pytest.mark.parametrize(
    ("answer", "expected"), [(Status(501), False), (Status(400), False), (Status(412), True)], ids=["501", "400", "412"]
)
def test_probe_of_a_server_that_knows_no_conditions(
    lab: Lab, storage: DualWriteStorage, answer: Fault, expected: bool
) -> None:
    lab.wire.fail(answer, method="PUT", after=1, times=2)
    assert honours_conditions(storage.pair) is expected


def test_probe_of_a_server_that_ignores_conditions(make_storage: MakeStorage, lab: Lab) -> None:
    storage = lab.storage("dual", connect_timeout=29.0)

    class Deaf:
        """Takes every condition and heeds none, as some servers do."""

        def __init__(self, store: object) -> None:
            self._store = store

        def put(self, key: str, source: object, parameters: object, *condition: object, sending: object) -> None:
            self._store.put(key, source, parameters, sending=sending)  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._store, name)

    live = storage.pair.s3._connected()
    live.store = Deaf(live.store)  # type: ignore[assignment]
    assert honours_conditions(storage.pair) is False


def test_probe_in_a_bad_moment_learns_nothing(lab: Lab, storage: DualWriteStorage) -> None:
    lab.wire.fail(Sequence((None, Refused())), method="PUT")
    with pytest.raises(S3TransientError):
        honours_conditions(storage.pair)


def test_what_a_probe_leaves_when_it_dies_is_nobodys_file(storage: DualWriteStorage, lab: Lab) -> None:
    lab.wire.fail(Refused(), method="DELETE")
    with pytest.raises(S3TransientError):
        honours_conditions(storage.pair)
    (left,) = [name for name in on_s3(storage) if "probe" in name]
    assert left.startswith(".dualstorage/")
    for phase in ("dual", "s3-primary", "s3"):
        folders, files = lab.storage(phase).listdir("")
        assert not [name for name in (*folders, *files) if "dualstorage" in name]
    assert Journal(str(storage.location)).read_capabilities()  # what was known before
