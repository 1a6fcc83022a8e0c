"""Two at once on a file that only S3 has, each in the one interleaving that used to go wrong.

The search in ``tests/model`` found them; ``tests/model/limits.py`` names the rule that each of them needs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.core import steps
from django_dualstorage.core.stamp import OP_KEY
from django_dualstorage.core.steps import Step
from django_dualstorage.exceptions import S3Error, S3PreconditionError
from django_dualstorage.hints import Kind
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, put_object, repaired
from tests.support.proxy import FaultProxy, Status

OLD, NEW = b"only S3 has this", b"new"


def content_of(storage: DualWriteStorage, name: str) -> bytes | None:
    try:
        with storage.open(name) as file:
            found: bytes = file.read()
            return found
    except FileNotFoundError:
        return None


def once_after(monkeypatch: pytest.MonkeyPatch, owner: object, method: str, action: Callable[[], object]) -> None:
    """Let ``action`` happen right after the first call of ``owner.method``, whatever that gave."""
    call = getattr(owner, method)
    due = [action]

    def then(*arguments: Any, **keywords: Any) -> Any:
        try:
            return call(*arguments, **keywords)
        finally:
            if due:
                due.pop()()

    monkeypatch.setattr(owner, method, then)


def test_a_read_that_meets_the_hint_of_a_delete_finds_the_file_that_was_brought_home(
    make_storage: MakeStorage, make_proxied: MakeStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, storage = make_storage("dual-strict"), make_proxied("dual-strict")
    put_object(reader, "a.txt", OLD)
    proxy.fail(Status(503), method="DELETE", key="a.txt")

    def fail_to_delete() -> None:
        with pytest.raises(S3Error):
            storage.delete("a.txt")

    once_after(monkeypatch, reader.pair.local, "open", fail_to_delete)
    assert content_of(reader, "a.txt") == OLD
    assert reader.pair.journal.has_hint("a.txt")
    proxy.clear_faults()
    assert repaired(reader).complete
    assert_sides_equal(reader)


@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_a_delete_that_waits_for_an_overwrite_hides_nothing(make_storage: MakeStorage, phase: str) -> None:
    storage, reader = make_storage(phase, allow_overwrite=True), make_storage(phase)
    assert probe(reader.pair)
    put_object(reader, "a.txt", OLD)
    waits = threading.Event()
    deleter = make_storage(phase)
    deleter.pair.observe = lambda step: waits.set() if step is Step.LOCK else None
    thread = threading.Thread(target=deleter.delete, args=["a.txt"])
    seen: list[bytes | None] = []

    def meanwhile(step: Step) -> None:
        if step is Step.PUT and not thread.ident:
            thread.start()
            assert waits.wait(30)
        if thread.ident:
            seen.append(content_of(reader, "a.txt"))

    storage.pair.observe = meanwhile
    assert storage.save("a.txt", ContentFile(NEW)) == "a.txt"
    thread.join()
    assert seen[:-1] == [OLD] * (len(seen) - 1)
    assert len(seen) == 5  # PUT, COMMIT (of the old version), PUT, COMMIT, CLEAR
    assert content_of(reader, "a.txt") is None
    assert_sides_equal(reader)


@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_an_overwrite_does_not_bring_home_what_its_own_first_attempt_wrote(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    storage = make_storage(phase, allow_overwrite=True)
    assert probe(storage.pair)
    store = storage.pair.s3.store
    put = store.put
    left = [1]

    def lost_and_retried(*arguments: Any, **keywords: Any) -> Any:
        if not left:
            return put(*arguments, **keywords)
        left.pop()
        put(*arguments, **keywords)
        with pytest.raises(S3PreconditionError) as refused:
            put(*arguments, **keywords)
        raise S3PreconditionError(str(refused.value), status=412, retried=True)

    monkeypatch.setattr(store, "put", lost_and_retried)
    taken: list[Step] = []
    storage.pair.observe = taken.append
    assert storage.save("a.txt", ContentFile(NEW)) == "a.txt"
    # The hint stays, however clean the last answer, since another attempt may still land.
    assert tuple(taken) == (Step.HINT, Step.STAGE, Step.LOCK, Step.STAMP, Step.PUT, Step.PUT, Step.COMMIT)
    assert storage.pair.journal.has_hint("a.txt")
    assert content_of(storage, "a.txt") == NEW
    assert repaired(storage).complete
    assert_sides_equal(storage)


def test_a_save_weighs_the_hints_of_the_living_too(make_storage: MakeStorage) -> None:
    """Of a process that was killed, the kernel may release the lock of the name before that of the hint."""
    storage = make_storage("dual-strict", allow_overwrite=True)
    assert probe(storage.pair)
    dying = storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual-strict")
    put_object(storage, "a.txt", b"never was", Metadata={OP_KEY: dying.record.op_id})
    assert content_of(storage, "a.txt") is None
    taken: list[Step] = []
    storage.pair.observe = taken.append
    storage.save("a.txt", ContentFile(NEW))
    assert Step.COMMIT not in taken[: taken.index(Step.COMMIT)]
    assert taken.count(Step.COMMIT) == 1
    dying.leave()
    assert repaired(storage).complete
    assert_sides_equal(storage)


def test_where_s3_is_the_truth_an_overwrite_keeps_the_file_for_readers_of_the_phase_below(
    make_storage: MakeStorage,
) -> None:
    storage, below = make_storage("s3-primary", allow_overwrite=True), make_storage("dual-strict")
    assert probe(below.pair)
    put_object(below, "a.txt", OLD)
    seen: list[bytes | None] = []
    taken: list[Step] = []

    def look(step: Step) -> None:
        taken.append(step)
        seen.append(content_of(below, "a.txt"))

    storage.pair.observe = look
    assert storage.save("a.txt", ContentFile(NEW)) == "a.txt"
    assert tuple(taken) == steps.SAVE_OVER_S3_ONLY
    assert set(seen[:-1]) == {OLD}
    assert content_of(below, "a.txt") == content_of(storage, "a.txt") == NEW
    assert_sides_equal(below)
