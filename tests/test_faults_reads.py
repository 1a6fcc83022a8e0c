"""Reads over a wire that fails in each way: before the cutover a reader never notices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.exceptions import NotOnDiskError, S3Error, S3TransientError
from django_dualstorage.hints import Kind
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import put_object, repaired
from tests.support.lab import IMPATIENT, PATIENT, Lab, seen
from tests.support.proxy import BlackHole, Fault, HeldAndLate, LostAnswer, Refused, Slow, Status, Truncated

CONTENT = bytes(range(256)) * 1024
ABSENT: dict[str, Fault] = {"404-key": Status(404)}
ERRORS: dict[str, Fault] = {
    "503": Status(503),
    "403": Status(403),
    "404-bucket": Status(404, code="NoSuchBucket"),
    "not-xml": Status(500, body=b"<html>captive portal</html>"),
    "refused": Refused(),
    "lost": LostAnswer(),
    "late": HeldAndLate(),
}
SILENCE: dict[str, Fault] = {"black-hole": BlackHole(), "silent": HeldAndLate(hang=True)}
READABLE: dict[str, Fault] = {"truncated": Truncated(1000), "truncated-at-once": Truncated(), "slow": Slow(delay=0.05)}
DUAL = ("dual", "dual-strict")
S3_TRUTH = ("s3-primary", "s3")


@pytest.fixture(autouse=True)
def _healed(lab: Lab) -> Iterator[None]:
    lab.storage("dual").pair.counters.clear()
    yield
    lab.wire.clear_faults()
    lab.wire.drop_held()
    repaired(lab.storage("dual"))
    lab.wire.clear()


@pytest.fixture
def name(lab: Lab) -> str:
    """A file that both sides have."""
    name = lab.storage("dual").save(lab.name(), ContentFile(CONTENT))
    lab.wire.clear()
    return name


@pytest.fixture
def only_on_s3(lab: Lab) -> str:
    name = lab.name()
    put_object(lab.storage("dual"), name, CONTENT)
    lab.wire.clear()
    return name


def patience(fault: str) -> float:
    return IMPATIENT if fault in SILENCE else PATIENT


@pytest.mark.parametrize("fault", [*ABSENT, *ERRORS, *SILENCE, *READABLE])
@pytest.mark.parametrize("phase", DUAL)
def test_file_on_both_sides_is_readable_whatever_s3_does(lab: Lab, name: str, phase: str, fault: str) -> None:
    storage = lab.storage(phase, patience=patience(fault))
    storage.pair.counters.clear()
    lab.wire.fail({**ABSENT, **ERRORS, **SILENCE, **READABLE}[fault], method="GET", key=name, times=None)
    assert seen(storage, name) == CONTENT
    assert lab.wire.count("GET", name) == 1  # one request, never a second
    if fault in READABLE:
        expected = {"read.s3": 1} if fault == "slow" else {"read.s3": 1, "read.fallback.broken": 1}
    else:
        expected = {"read.fallback.absent" if fault in ABSENT else "read.fallback.error": 1}
    assert storage.pair.counters == expected


@pytest.mark.parametrize("fault", [*ERRORS, *SILENCE])
@pytest.mark.parametrize("phase", S3_TRUTH)
def test_error_is_raised_where_s3_is_the_truth(lab: Lab, name: str, phase: str, fault: str) -> None:
    storage = lab.storage(phase, patience=patience(fault))
    lab.wire.fail({**ERRORS, **SILENCE}[fault], key=name, times=None)
    with pytest.raises(S3Error) as failure:
        storage.open(name)
    assert isinstance(failure.value, OSError)
    assert not isinstance(failure.value, FileNotFoundError)
    with pytest.raises(S3Error):
        storage.exists(name)
    with pytest.raises(S3Error):
        storage.size(name)


@pytest.mark.parametrize("fault", READABLE)
@pytest.mark.parametrize("phase", S3_TRUTH)
def test_broken_answer_is_resumed_where_s3_is_the_truth(lab: Lab, name: str, phase: str, fault: str) -> None:
    storage = lab.storage(phase)
    lab.wire.fail(READABLE[fault], method="GET", key=name, times=1)
    assert seen(storage, name) == CONTENT


def test_answer_that_breaks_again_and_again_ends_in_an_error(lab: Lab, name: str) -> None:
    lab.wire.fail(Truncated(), method="GET", key=name, times=None)
    with lab.storage("s3").open(name) as file, pytest.raises(S3TransientError, match=r"a\.txt"):
        file.read()


def test_object_replaced_while_it_is_read_is_never_mixed(lab: Lab, name: str) -> None:
    storage = lab.storage("s3", allow_overwrite=True)
    lab.wire.fail(Truncated(1000), method="GET", key=name, times=1)
    with storage.open(name) as file:
        storage.save(name, ContentFile(b"another" * 40_000))
        with pytest.raises(S3TransientError, match="replaced on S3"):
            file.read()
    lab.storage("mirror", allow_overwrite=True).save(name, ContentFile(b"x"))


@pytest.mark.parametrize("phase", ["filesystem", "mirror"])
def test_reads_of_the_disk_alone_send_nothing(lab: Lab, name: str, only_on_s3: str, phase: str) -> None:
    lab.wire.clear()
    storage = lab.storage(phase)
    assert seen(storage, name) == CONTENT
    assert seen(storage, only_on_s3) is None
    assert lab.wire.count() == 0


@pytest.mark.parametrize("phase", [*DUAL, *S3_TRUTH])
def test_file_that_only_s3_has_is_readable(lab: Lab, only_on_s3: str, phase: str) -> None:
    storage = lab.storage(phase)
    assert seen(storage, only_on_s3) == CONTENT
    folder, _, basename = only_on_s3.partition("/")
    assert storage.listdir(folder) == ([], [basename])


@pytest.mark.parametrize("fault", READABLE)
def test_file_that_only_s3_has_is_resumed(lab: Lab, only_on_s3: str, fault: str) -> None:
    lab.wire.fail(READABLE[fault], method="GET", key=only_on_s3, times=1)
    with lab.storage("dual").open(only_on_s3) as file:
        assert file.read() == CONTENT


@pytest.mark.parametrize("fault", [*ERRORS, *SILENCE])
@pytest.mark.parametrize("phase", DUAL)
def test_unknown_is_told_apart_from_absent(lab: Lab, only_on_s3: str, phase: str, fault: str) -> None:
    storage = lab.storage(phase, patience=patience(fault))
    lab.wire.fail({**ERRORS, **SILENCE}[fault], key=only_on_s3, times=None)
    with pytest.raises(NotOnDiskError, match="could not be asked") as failure:
        storage.open(only_on_s3)
    assert isinstance(failure.value, FileNotFoundError)
    if fault != "404-bucket":  # a HEAD has no body and so no code: it is confirmed by a GET, which is not faulted alike
        with pytest.raises(NotOnDiskError):
            storage.size(only_on_s3)
    assert not storage.exists(only_on_s3)
    assert storage.pair.counters["read.unknown"] >= 2


def test_absent_everywhere_is_a_plain_file_not_found(lab: Lab) -> None:
    storage = lab.storage("dual")
    with pytest.raises(FileNotFoundError) as failure:
        storage.open("nowhere.txt")
    assert not isinstance(failure.value, S3Error)
    assert failure.value.filename == os.path.join(lab.root, "nowhere.txt")


def test_name_that_s3_cannot_take_is_absent_without_asking(lab: Lab) -> None:
    name = "a\x01b.txt"
    for phase in (*DUAL, *S3_TRUTH):
        assert seen(lab.storage(phase), name) is None
    assert lab.wire.count() == 0
    lab.storage("mirror").save(name, ContentFile(b"x"))
    assert seen(lab.storage("dual"), name) == b"x"
    Path(lab.root, name).unlink()


def test_delete_that_has_begun_means_absent_where_only_s3_has_the_file(lab: Lab, only_on_s3: str) -> None:
    storage = lab.storage("dual")
    hint = storage.pair.journal.announce(Kind.DELETE, only_on_s3, phase="dual")
    assert seen(storage, only_on_s3) is None
    assert lab.wire.count(key=only_on_s3) == 0
    with pytest.raises(FileNotFoundError):
        storage.listdir(os.path.dirname(only_on_s3))
    hint.clear()
    assert seen(storage, only_on_s3) == CONTENT


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.DELETE])
def test_object_of_an_operation_that_has_not_committed_is_absent(lab: Lab, kind: Kind) -> None:
    storage = lab.storage("dual")
    name = lab.name()
    hint = storage.pair.journal.announce(kind, name, phase="dual")
    put_object(storage, name, CONTENT, Metadata={"ds-op": hint.record.op_id})
    assert seen(storage, name) is None
    put_object(storage, name, CONTENT, Metadata={"ds-op": "another"})
    assert seen(storage, name) == CONTENT
    hint.clear()


class _At:
    """Does something while a GET or HEAD is under way: between the first look and the second."""

    def __init__(self, storage: DualWriteStorage, verb: str, act: object) -> None:
        self._asked = getattr(storage.pair.s3, verb)
        self._act = act

    def __call__(self, *args: object, **kwargs: object) -> object:
        answer = self._asked(*args, **kwargs)
        act, self._act = self._act, None
        if callable(act):
            act()
        return answer


@pytest.mark.parametrize("verb", ["get", "head"])
def test_file_that_comes_to_the_disk_between_the_looks_is_read_there(
    lab: Lab, only_on_s3: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = lab.storage("dual")
    path = Path(lab.root, only_on_s3)

    def appears() -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"from the disk")

    monkeypatch.setattr(storage.pair.s3, verb, _At(storage, verb, appears))
    if verb == "get":
        assert seen(storage, only_on_s3) == b"from the disk"
    else:
        assert storage.size(only_on_s3) == len(b"from the disk")
    path.unlink()


@pytest.mark.parametrize("verb", ["get", "head"])
def test_delete_that_begins_between_the_looks_hides_the_object(
    lab: Lab, only_on_s3: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = lab.storage("dual")
    journal = storage.pair.journal
    act = _At(storage, verb, lambda: journal.announce(Kind.DELETE, only_on_s3, phase="dual").leave())
    monkeypatch.setattr(storage.pair.s3, verb, act)
    with pytest.raises(FileNotFoundError) as failure:
        storage.open(only_on_s3) if verb == "get" else storage.size(only_on_s3)
    assert not isinstance(failure.value, NotOnDiskError)


def test_disk_that_changes_at_every_look_ends_at_the_disk(
    lab: Lab, only_on_s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody creates and removes the file again and again around the storage."""
    storage = lab.storage("dual")
    local = storage.pair.local
    monkeypatch.setattr(local, "exists", lambda name: True)
    with pytest.raises(FileNotFoundError):
        storage.open(only_on_s3)
    assert lab.wire.count("GET", only_on_s3) == 5
