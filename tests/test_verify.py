"""Verify: each kind of finding on a real server, what is not accused, and what --fix does about it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.core.stamp import STAMP_KEY, Stamp
from django_dualstorage.engine.retry import Patience
from django_dualstorage.hints import Kind
from django_dualstorage.models import Discrepancy, Run
from django_dualstorage.operations import verify as module
from django_dualstorage.operations.anonymous import look_in_anonymously
from django_dualstorage.operations.gate import RefusedError
from django_dualstorage.operations.probe import probe
from django_dualstorage.operations.spool import Spool
from django_dualstorage.operations.verify import Verification, Verify, Wanted
from django_dualstorage.protocol.operation import Locked
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.records import noted_run
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import (
    assert_sides_equal,
    client_of,
    head_object,
    hint,
    ignore,
    key,
    never_stop,
    on_s3,
    put_object,
    repaired,
)
from tests.support.backfills import write
from tests.support.lab import IMPATIENT, Lab
from tests.support.proxy import BlackHole, Refused

pytestmark = pytest.mark.django_db

Findings = list[tuple[Difference, str]]


@pytest.fixture
def storage(lab: Lab) -> DualWriteStorage:
    storage = lab.storage("dual", allow_overwrite=True, alias="default")
    if not storage.pair.s3.honours_conditions:
        probe(storage.pair)
    return storage


@pytest.fixture
def folder(lab: Lab, storage: DualWriteStorage) -> Iterator[str]:
    """A folder of this test's own; verification is told to look nowhere else."""
    folder = f"{lab.name().partition('/')[0]}/"
    yield folder
    repaired(storage)


@pytest.fixture
def verify(storage: DualWriteStorage, folder: str) -> Iterator[Callable[..., Verification]]:
    """Verify the test's folder."""
    made: list[Verification] = []

    def run(on_result: Callable[[FileResult], None] = ignore, **wanted: Any) -> Verification:
        result = verification(storage, Wanted(**{"prefix": folder, "database": False, "workers": 4, **wanted})).run(
            never_stop(), on_result
        )
        made.append(result)
        return result

    yield run
    for result in made:
        result.close()


def verification(storage: DualWriteStorage, wanted: Wanted, **options: Any) -> Verify:
    """One that has no time for patience with errors."""
    return Verify(storage, wanted, patience=Patience(attempts=1), **options)


def found(result: Verification) -> Findings:
    return sorted((one.kind, one.name.rpartition("/")[2]) for one in result.found())


def uploaded(storage: DualWriteStorage, name: str, content: bytes = b"content") -> None:
    """Save a file, long ago, so that nobody waits for it to settle."""
    write(storage, name, content, mtime=10**18 + len(content))
    assert reconcile(storage.pair, storage.policy, name, now=0).clean


def test_equal_sides_are_fine(storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]) -> None:
    for number in range(5):
        uploaded(storage, f"{folder}{number}.txt")
    for _ in range(2):  # the second time by the inventory
        result = verify(deep=True)
        assert found(result) == []
        assert (result.files, result.objects, result.files_read, result.bytes_read) == (5, 5, 5, 35)
        assert not result.problems


def test_each_difference_of_the_two_sides(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    write(storage, f"{folder}missing-on-s3.txt")
    put_object(storage, f"{folder}missing-locally.txt", b"content")
    uploaded(storage, f"{folder}touched.txt")
    os.utime(Path(storage.location, folder, "touched.txt"), ns=(5, 5))
    uploaded(storage, f"{folder}grown.txt")
    write(storage, f"{folder}grown.txt", b"content and more")
    write(storage, f"{folder}unstamped.txt")
    put_object(storage, f"{folder}unstamped.txt", b"CONTENT")
    write(storage, f"{folder}foreign.txt")
    put_object(storage, f"{folder}foreign.txt", b"something else")
    uploaded(storage, f"{folder}pending.txt")
    hint(storage, f"{folder}pending.txt")
    uploaded(storage, f"{folder}deleted.txt")
    os.unlink(Path(storage.location, folder, "deleted.txt"))
    hint(storage, f"{folder}deleted.txt", Kind.DELETE)
    uploaded(storage, f"{folder}equal.txt")
    hint(storage, f"{folder}neither.txt", Kind.DELETE)
    result = verify()
    assert found(result) == [
        (Difference.DIFFERS, "foreign.txt"),
        (Difference.DIFFERS, "grown.txt"),
        (Difference.DIFFERS, "touched.txt"),
        (Difference.EXTRA_ON_S3, "deleted.txt"),
        (Difference.HINT_PENDING, "neither.txt"),
        (Difference.HINT_PENDING, "pending.txt"),
        (Difference.MISSING_LOCALLY, "missing-locally.txt"),
        (Difference.MISSING_ON_S3, "missing-on-s3.txt"),
        (Difference.UNSTAMPED, "unstamped.txt"),
    ]
    assert result.problems == 9
    os.unlink(Path(storage.location, folder, "unstamped.txt"))  # else the bytes are replaced, which is right, too
    client, bucket = client_of(storage)
    for name in ("unstamped.txt", "missing-locally.txt"):
        client.delete_object(Bucket=bucket, Key=key(storage, folder + name))


def test_fix_does_what_backfill_and_repair_do(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    write(storage, f"{folder}missing-on-s3.txt")
    write(storage, f"{folder}unstamped.txt")
    put_object(storage, f"{folder}unstamped.txt", b"content")
    uploaded(storage, f"{folder}deleted.txt")
    os.unlink(Path(storage.location, folder, "deleted.txt"))
    hint(storage, f"{folder}deleted.txt", Kind.DELETE)
    put_object(storage, f"{folder}only.txt", b"content")
    told: list[str] = []
    with_fix = Verify(storage, Wanted(prefix=folder, database=False, fix=True), tell=told.append).run(
        never_stop(), ignore
    )
    assert told == ["Fixing, as backfill and repair would: 1 missing-on-s3, 1 unstamped, 1 extra-on-s3."]
    assert sorted(map(str, with_fix.fixed.elements())) == ["adopted", "deleted", "uploaded"]
    assert found(with_fix) == [(Difference.MISSING_LOCALLY, "only.txt")]
    with_fix.close()
    assert found(verify()) == [(Difference.MISSING_LOCALLY, "only.txt")]
    closed = Discrepancy.objects.filter(name__startswith=folder).exclude(resolved_at=None)
    assert sorted(closed.values_list("kind", "resolution")) == [
        ("extra-on-s3", "fixed"),
        ("missing-on-s3", "fixed"),
        ("unstamped", "fixed"),
    ]
    client, bucket = client_of(storage)
    client.delete_object(Bucket=bucket, Key=key(storage, f"{folder}only.txt"))
    assert_sides_equal(storage, folder)


def test_fix_ends_when_s3_becomes_the_truth_under_its_hands(make_storage: MakeStorage) -> None:
    storage, later = make_storage("dual"), make_storage("s3-primary")
    path = write(storage, "a.txt", b"only the disk has it")

    def flip(message: str) -> None:
        storage._records = later.records  # after the comparison, before the first file is mended

    with pytest.raises(RefusedError, match="S3 is the truth"):
        Verify(storage, Wanted(database=False, fix=True), tell=flip).run(never_stop(), ignore)
    assert path.read_bytes() == b"only the disk has it"
    assert on_s3(storage) == {}


def test_fix_is_refused_where_s3_is_the_truth(lab: Lab) -> None:
    with pytest.raises(RefusedError, match="S3 is the truth"):
        Verify(lab.storage("s3-primary"), Wanted(fix=True)).run(never_stop(), ignore)


def test_living_operations_are_not_accused(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(storage, f"{folder}a.txt")
    write(storage, f"{folder}a.txt", b"new content")
    living = storage.pair.journal.announce(Kind.SAVE, f"{folder}a.txt", phase="dual")
    locked, looking = threading.Event(), threading.Event()

    def save() -> None:
        with Locked(storage.pair, f"{folder}a.txt"):
            locked.set()
            looking.wait(10)
            # What a save does before it gives its lock back: S3 has the new version, then the disk.
            uploaded_as = {"Metadata": {STAMP_KEY: str(storage.pair.local.version(f"{folder}a.txt"))}}
            put_object(storage, f"{folder}a.txt", b"new content", **uploaded_as)
        living.clear()

    saving = threading.Thread(target=save)
    saving.start()
    locked.wait(10)
    acquire = storage.pair.locks.acquire

    def acquire_now(name: str) -> int:
        looking.set()
        return acquire(name)

    monkeypatch.setattr(storage.pair.locks, "acquire", acquire_now)
    assert found(verify()) == []
    saving.join()


def test_name_that_stays_locked_is_not_judged(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(storage, f"{folder}a.txt")
    monkeypatch.setattr(storage.pair.locks, "_timeout", 0.01)
    with Locked(storage.pair, f"{folder}a.txt"):
        result = verify()
    assert (found(result), result.busy) == ([], 1)
    os.unlink(Path(storage.location, folder, "a.txt"))


def test_file_written_around_the_storage_meanwhile_is_not_judged(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(storage, f"{folder}a.txt")
    os.utime(Path(storage.location, folder, "a.txt"), ns=(5, 5))
    head = storage.pair.s3.head

    def written_meanwhile(name: str, *, patient: bool) -> Any:
        path = Path(storage.location, name)
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        return head(name, patient=patient)

    monkeypatch.setattr(storage.pair.s3, "head", written_meanwhile)
    result = verify()
    assert (found(result), result.busy) == ([], 1)
    monkeypatch.undo()
    os.unlink(Path(storage.location, folder, "a.txt"))
    hint(storage, f"{folder}a.txt", Kind.DELETE)


def test_what_cannot_be_moved_is_told_before_anything_is_read(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    root = Path(storage.location, folder)
    root.mkdir()
    (root / "link").symlink_to("/etc/hostname")
    os.mkfifo(root / "pipe")
    for name in ("back\\slash", ".hidden", "thing.tmp", "A.txt", "a.txt", "caf\u00e9", "cafe\u0301"):
        write(storage, folder + name, b"" if name == ".hidden" else b"content")
    told: list[tuple[str, int]] = []
    before = len(lab.wire.requests)
    result = verification(
        storage,
        Wanted(prefix=folder, database=False),
        tell=lambda text: told.append((text, len(lab.wire.requests) - before)),
    ).run(never_stop(), ignore)
    assert result.counts == {
        Difference.MISSING_ON_S3: 6,
        Difference.BAD_NAME: 1,
        Difference.SYMLINK: 1,
        Difference.SPECIAL: 1,
        Difference.NFC_TWIN: 1,
        Difference.CASE_TWIN: 1,
        Difference.HIDDEN: 1,
        Difference.TEMPORARY: 1,
        Difference.EMPTY: 1,
    }
    result.close()
    ((text, requests),) = told
    assert "1 special" in text
    assert requests == 1  # the listing
    for path in root.iterdir():
        path.unlink()


def test_errors_of_one_name_do_not_stop_the_others(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], lab: Lab
) -> None:
    for name in ("a.txt", "b.txt"):
        uploaded(storage, folder + name)
    lab.wire.fail(Refused(), method="HEAD", key="a.txt")
    assert found(verify()) == [(Difference.FAILED, "a.txt")]
    lab.wire.fail(Refused(), method="GET", key="b.txt")
    assert found(verify(deep=True)) == [(Difference.FAILED, "b.txt")]
    assert found(verify(deep=True)) == []


def test_damaged_hint_is_named(storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]) -> None:
    uploaded(storage, f"{folder}a.txt")
    hint(storage, f"{folder}a.txt")
    (path,) = storage.pair.journal._paths_of(f"{folder}a.txt")
    before = Path(path).read_bytes()
    Path(path).write_bytes(b"nonsense\n")
    # The hint, and the file of which nothing can be said while it is there.
    findings = found(verify())
    Path(path).write_bytes(before)
    assert findings == sorted([(Difference.FAILED, os.path.basename(path)), (Difference.FAILED, "a.txt")])


# -- the bytes ---------------------------------------------------------------------------------------------------------


def corrupt(storage: DualWriteStorage, name: str, bit: int = 3) -> None:
    """Flip one bit of the object and keep everything else, the stamp too."""
    client, bucket = client_of(storage)
    answer = client.get_object(Bucket=bucket, Key=key(storage, name))
    content = bytearray(answer["Body"].read())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    client.put_object(Bucket=bucket, Key=key(storage, name), Body=bytes(content), Metadata=answer["Metadata"])


def test_flipped_bit_is_found_by_reading(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    for number in range(3):
        uploaded(storage, f"{folder}{number}.txt", b"content" * 300_000)
    corrupt(storage, f"{folder}1.txt", bit=8 * 1_500_000 + 3)
    assert found(verify()) == []
    result = verify(deep=True)
    (one,) = result.found()
    assert (one.kind, one.name, one.side) == (Difference.BYTES_DIFFER, f"{folder}1.txt", Side.UNKNOWN)
    assert "from byte 1500000" in one.detail
    assert "both unknown" in one.detail
    uploaded(storage, f"{folder}1.txt", b"content")
    assert found(verify(deep=True)) == []


def test_file_that_changed_without_its_time(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    name = f"{folder}a.txt"
    uploaded(storage, name)
    long_ago = Path(storage.location, name).stat().st_mtime_ns
    assert found(verify()) == []  # and the inventory knows it
    write(storage, name, b"CONTENT", mtime=long_ago)
    assert found(verify()) == []
    (one,) = verify(deep=True).found()
    assert (one.kind, one.side) == (Difference.BYTES_DIFFER, Side.UNKNOWN)
    write(storage, name, mtime=long_ago)


def test_s3_that_gives_out_other_bytes_than_it_took(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{folder}a.txt"
    uploaded(storage, name)
    get = storage.pair.s3.get

    def rotten(*args: Any, **kwargs: Any) -> Any:
        body = get(*args, **kwargs)
        read = body.read
        monkeypatch.setattr(body, "read", lambda size=-1: read(size).replace(b"tent", b"TENT"))
        return body

    monkeypatch.setattr(storage.pair.s3, "get", rotten)
    (one,) = verify(deep=True).found()
    assert (one.kind, one.side) == (Difference.BYTES_DIFFER, Side.S3)
    assert "from byte 3; the disk is right" in one.detail
    assert found(verify(deep=True, fix=True)) == [(Difference.BYTES_DIFFER, "a.txt")]  # a person has to look
    monkeypatch.undo()
    os.utime(Path(storage.location, name))
    assert verify(fix=True).fixed == {Outcome.REPLACED: 1}
    assert found(verify(deep=True)) == []


def test_unstamped_object_with_other_bytes(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    write(storage, f"{folder}a.txt")
    put_object(storage, f"{folder}a.txt", b"CONTENT")
    assert found(verify(deep=True)) == [(Difference.DIFFERS, "a.txt"), (Difference.UNSTAMPED, "a.txt")]
    assert found(verify(fix=True)) == []
    assert found(verify(deep=True)) == []


def test_sample_is_the_same_for_the_same_seed(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    for number in range(20):
        uploaded(storage, f"{folder}{number}.txt")

    def read(seed: int) -> set[str]:
        names: set[str] = set()

        def on_result(result: FileResult) -> None:
            if result.size:
                names.add(result.name)

        verify(on_result, deep=True, sample=0.4, seed=seed)
        return names

    assert read(1) == read(1)
    assert 0 < len(read(1)) < 20
    assert read(1) != read(2)


def test_other_stamp_under_a_certified_etag_is_found_by_reading(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    name = f"{folder}a.txt"
    uploaded(storage, name)
    assert found(verify()) == []  # and the inventory knows it
    put_object(storage, name, b"content", Metadata={STAMP_KEY: str(Stamp(7, 5))})
    assert found(verify()) == []
    result = verify(deep=True)
    assert (found(result), result.busy) == ([(Difference.DIFFERS, "a.txt")], 0)
    assert verify(deep=True, fix=True).fixed == {Outcome.REPLACED: 1}
    assert found(verify(deep=True)) == []


LONG = bool(os.environ.get("DUALSTORAGE_LONG"))


@pytest.mark.timeout(6 * 3600 if LONG else 300)
def test_one_flipped_bit_among_many_is_found_every_time(make_storage: MakeStorage) -> None:
    """The long form, with DUALSTORAGE_LONG=1, is 100 times among 10,000."""
    files, rounds = (10_000, 100) if LONG else (200, 5)
    storage = make_storage("dual", allow_overwrite=True)
    for number in range(files):
        write(storage, f"{number % 100}/{number}.txt", b"%d" % number * 20)
    verification(storage, Wanted(database=False, fix=True)).run(never_stop(), ignore).close()
    for number in range(rounds):
        victim = number * 7919 % files
        name = f"{victim % 100}/{victim}.txt"
        corrupt(storage, name, bit=number * 11)
        result = verification(storage, Wanted(database=False, deep=True)).run(never_stop(), ignore)
        assert [(one.kind, one.name) for one in result.found()] == [(Difference.BYTES_DIFFER, name)]
        assert result.files_read == files
        result.close()
        corrupt(storage, name, bit=number * 11)


# -- without credentials -----------------------------------------------------------------------------------------------


def test_unsigned_requests_must_be_refused(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(storage, f"{folder}a.txt")
    result = verify(anonymous=True)
    assert found(result) == []
    assert result.remarks == ["The list of the bucket and 1 objects were asked for without credentials."]


def test_unsigned_requests_are_as_patient_as_the_storage_and_made_once(lab: Lab) -> None:
    storage = lab.storage("dual", allow_overwrite=True, patience=IMPATIENT)
    lab.wire.fail(BlackHole(), method="GET", key="a.txt")
    before, started = len(lab.wire.requests), time.monotonic()
    (one,) = look_in_anonymously(storage.pair, ["a.txt"], never_stop())
    assert (one.kind, one.name) == (Difference.FAILED, "a.txt")
    assert time.monotonic() - started < 5
    assert len(lab.wire.requests) - before == 2  # the list and the object


def test_unsigned_requests_end_when_asked_to(storage: DualWriteStorage, lab: Lab) -> None:
    stop = never_stop()
    stop.ask()
    before = len(lab.wire.requests)
    assert list(look_in_anonymously(storage.pair, ["a.txt", "b.txt"], stop)) == []
    assert len(lab.wire.requests) - before == 1


def test_bucket_that_is_meant_to_be_public_is_not_asked(make_storage: MakeStorage) -> None:
    for s3 in ({"querystring_auth": False}, {"default_acl": "public-read"}):
        storage = make_storage("dual", s3=s3)
        result = verification(storage, Wanted(anonymous=True, database=False)).run(never_stop(), ignore)
        assert "meant to be public" in " ".join(result.remarks)
        result.close()


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_run_and_its_discrepancies_are_kept(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification]
) -> None:
    write(storage, f"{folder}a.txt")
    first = verify()
    run = Run.objects.get(id=first.run_id or 0)
    assert (run.state, run.kind, run.counts, run.pid) == ("finished", "verify", {"missing-on-s3": 1}, os.getpid())
    assert run.report["problems"] == 1
    one = Discrepancy.objects.get(name=f"{folder}a.txt")
    assert (one.run_id, one.kind, one.side, one.resolved_at) == (run.id, "missing-on-s3", "s3", None)
    second = verify(fix=False)
    again = Discrepancy.objects.get(name=f"{folder}a.txt")
    assert (again.id, again.run_id, again.first_seen) == (one.id, second.run_id, one.first_seen)
    assert again.last_seen > one.last_seen
    os.unlink(Path(storage.location, folder, "a.txt"))
    verify()
    gone = Discrepancy.objects.get(name=f"{folder}a.txt")
    assert (gone.resolution, gone.resolved_at is None) == ("gone", False)
    write(storage, f"{folder}a.txt")
    verify()
    back = Discrepancy.objects.get(name=f"{folder}a.txt")
    assert (back.resolution, back.resolved_at, back.first_seen) == ("", None, one.first_seen)
    os.unlink(Path(storage.location, folder, "a.txt"))


def test_discrepancy_stays_open_while_nobody_can_look(
    storage: DualWriteStorage,
    folder: str,
    verify: Callable[..., Verification],
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = f"{folder}a.txt"
    write(storage, name)
    verify()
    uploaded(storage, name)
    missing = Discrepancy.objects.open().filter(name=name, kind="missing-on-s3")
    with monkeypatch.context() as impatient, Locked(storage.pair, name):
        impatient.setattr(storage.pair.locks, "_timeout", 0.01)
        assert verify().busy == 1
    assert missing.exists()
    lab.wire.fail(Refused(), method="HEAD", key="a.txt")
    assert found(verify()) == [(Difference.FAILED, "a.txt")]
    assert missing.exists()
    assert found(verify()) == []
    assert not Discrepancy.objects.open().filter(name=name).exists()


def test_discrepancy_below_a_folder_that_cannot_be_read_stays_open() -> None:
    with closing(Spool()) as spool:
        spool.find(
            [
                Found(Difference.UNREADABLE, "a/b", Side.DISK, ""),
                Found(Difference.FAILED, "failed", Side.UNKNOWN, ""),
                Found(Difference.DIFFERS, "differs", Side.UNKNOWN, ""),
            ]
        )
        spool.leave_open(["busy", "busy"])
        names = ["a/b/c/d.txt", "a/b", "a/c.txt", "a", "failed", "failed/a", "differs", "busy", "", "a/bc"]
        assert spool.unjudged(names) == {"a/b/c/d.txt", "a/b", "failed", "busy"}


def test_bucket_that_was_closed_is_no_discrepancy_any_more(
    storage: DualWriteStorage,
    folder: str,
    verify: Callable[..., Verification],
    monkeypatch: pytest.MonkeyPatch,
    lab: Lab,
) -> None:
    for number in range(3):
        uploaded(storage, f"{folder}{number}.txt")
    monkeypatch.setattr(module, "ASKED_ANONYMOUSLY", 2)
    names = ["", *(f"{folder}{number}.txt" for number in range(3))]
    with noted_run("default", "verify", {}) as note:
        note.found(Found(Difference.PUBLIC, name, Side.S3, "can be read by anybody") for name in ["", names[3]])
    still_open = Discrepancy.objects.open().filter(kind="public")
    verify()
    assert still_open.count() == 2
    lab.wire.fail(Refused(), method="GET", key="2.txt")
    verify(anonymous=True)
    assert list(still_open.values_list("name", flat=True)) == [names[3]]
    verify(anonymous=True)
    assert not still_open.all().exists()


def test_no_more_of_a_kind_than_are_kept(
    storage: DualWriteStorage, folder: str, verify: Callable[..., Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOTED_PER_KIND", 2)
    for number in range(4):
        write(storage, f"{folder}{number}.txt")
    assert verify().counts == {Difference.MISSING_ON_S3: 4}
    assert Discrepancy.objects.open().count() == 2
    for number in range(3):
        os.unlink(Path(storage.location, folder, f"{number}.txt"))
    verify()
    assert Discrepancy.objects.open().count() == 1
    os.unlink(Path(storage.location, folder, "3.txt"))


def test_stop_reports_what_was_reached(storage: DualWriteStorage, folder: str) -> None:
    for number in range(40):
        write(storage, f"{folder}{number}.txt")
    stop = never_stop()
    result = verification(storage, Wanted(prefix=folder, workers=1)).run(stop, lambda result: stop.ask())
    assert result.interrupted
    assert 0 < result.counts[Difference.MISSING_ON_S3] < 40
    assert Run.objects.get(id=result.run_id or 0).state == Run.State.INTERRUPTED
    result.close()
    for number in range(40):
        os.unlink(Path(storage.location, folder, f"{number}.txt"))


def test_error_that_ends_a_run_is_kept(storage: DualWriteStorage, folder: str, lab: Lab) -> None:
    lab.wire.fail(Refused(), method="GET", key="^$")
    with pytest.raises(OSError, match="S3"):
        verification(storage, Wanted(prefix=folder)).run(never_stop(), ignore)
    run = Run.objects.latest("id")
    assert run.state == Run.State.FAILED
    assert "S3" in run.report["error"]


def test_looking_makes_no_folder(make_storage: MakeStorage, media_root: Path) -> None:
    storage = make_storage("dual")
    (media_root / "a.txt").write_bytes(b"content")
    result = verification(storage, Wanted(database=False)).run(never_stop(), ignore)
    assert found(result) == [(Difference.MISSING_ON_S3, "a.txt")]
    result.close()
    assert [path.name for path in media_root.iterdir()] == ["a.txt"]


def test_empty_root_asks_for_the_volume(make_storage: MakeStorage) -> None:
    storage = make_storage("dual")
    put_object(storage, "a.txt", b"content")
    result = verification(storage, Wanted(database=False)).run(never_stop(), ignore)
    assert "Is the volume mounted?" in result.remarks[-1]
    result.close()
    assert head_object(storage, "a.txt")["ContentLength"] == 7
