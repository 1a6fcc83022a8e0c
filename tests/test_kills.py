"""kill -9 before any line of an operation: a reader sees the old or the new, and one repair makes both sides equal.

``DUALSTORAGE_LONG=1`` tries every executed line of the package, and some of its repetitions; ``DUALSTORAGE_KILLS=all``
every execution, which takes hours. By default only modules that touch something outside the process are tried: a kill
elsewhere leaves what a kill at the next such line leaves. And what phases share is sampled in all but one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.files.base import ContentFile
from django.test import override_settings

from django_dualstorage.core.names import staged_name
from django_dualstorage.core.stamp import OP_KEY, STAMP_KEY
from django_dualstorage.hints import Kind
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.probe import probe
from django_dualstorage.operations.repair import repair
from django_dualstorage.storage import DualWriteStorage
from tests.support import kills
from tests.support.asserts import (
    assert_sides_equal,
    client_of,
    ignore,
    key,
    never_stop,
    on_disk,
    on_s3,
    put_object,
    repaired,
)
from tests.support.kills import Operation, kill_everywhere, victim
from tests.support.lab import Lab, seen
from tests.support.seaweed import SeaweedServer

OLD, NEW = b"the old content", b"new"

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def lab(seaweed: SeaweedServer, seaweed_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(seaweed, seaweed_bucket, tmp_path_factory.mktemp("media"))
    probe(lab.storage("dual").pair)
    return lab


@pytest.fixture(scope="module", autouse=True)
def _summary() -> Iterator[None]:
    yield
    print(f"\n{kills.total} kills ({'every execution' if kills.ALL else 'long form' if kills.LONG else 'short form'})")


@pytest.fixture(autouse=True)
def _phase_is_read_once() -> Iterator[None]:
    with override_settings(DUALSTORAGE_PHASE_TTL=1e9):  # or the number of lines would depend on the clock
        yield


def save(storage: DualWriteStorage, name: str) -> object:
    return storage.save(name, ContentFile(NEW))


def delete(storage: DualWriteStorage, name: str) -> object:
    storage.delete(name)
    return None


OPERATIONS: dict[str, tuple[Operation, bytes | None, bytes | None]] = {
    "save-new": (save, None, NEW),
    "overwrite": (save, OLD, NEW),
    "delete": (delete, OLD, None),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("phase", ["dual", "dual-strict", "s3-primary"])
def test_killed_write(lab: Lab, phase: str, operation: str, record_property: Callable[[str, object], None]) -> None:
    act, before, after = OPERATIONS[operation]
    reader = lab.storage(phase, allow_overwrite=True)
    series = f"{phase}/{operation}-"
    seen_after: set[bytes | None] = set()

    def prepare() -> str:
        name = series + lab.name()
        if before is not None:
            reader.save(name, ContentFile(before))
        return name

    def check(name: str, point: int) -> None:
        content = seen(reader, name)
        assert content in (before, after), f"killed before line event {point}"
        if not point:
            assert content == after
        seen_after.add(content)
        truths[name] = content

    truths: dict[str, bytes | None] = {}
    record_property(
        "kills", kill_everywhere(prepare, act, victim(lab, phase), check, sample=1 if phase == "dual" else 4)
    )
    assert seen_after == {before, after}

    report = repaired(reader, force=True)  # hundreds of saves that never were look like a volume that was emptied
    assert report.complete
    assert_sides_equal(reader, series)
    # Repair decides nothing anew: who has read the old or the new goes on reading it.
    left = {name: version.content for name, version in on_disk(reader, series).items()}
    assert left == {name: content for name, content in truths.items() if content is not None}


@pytest.mark.parametrize("phase", ["dual", "dual-strict", "s3-primary"])
def test_killed_repair(lab: Lab, phase: str, record_property: Callable[[str, object], None]) -> None:
    reader = lab.storage(phase, allow_overwrite=True)
    client, bucket = client_of(reader)
    series = f"{phase}/repair-"
    local_truth = reader.policy.local_truth
    truth = {
        "overwritten.txt": OLD if local_truth else NEW,
        "deleted.txt": OLD if local_truth else None,
        "created.txt": None if local_truth else NEW,
    }

    def half_saved(name: str) -> None:
        """As a save leaves it that is killed just before its commit."""
        hint = reader.pair.journal.announce(Kind.SAVE, name, phase=phase)
        path = Path(reader.location, os.path.dirname(name), staged_name(hint.record.op_id))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(NEW)
        stamp = f"{len(NEW)}:{path.stat().st_mtime_ns}"
        put_object(reader, name, NEW, Metadata={STAMP_KEY: stamp, OP_KEY: hint.record.op_id})
        hint.leave()

    def prepare() -> str:
        folder = series + lab.name().partition("/")[0]
        reader.save(f"{folder}/overwritten.txt", ContentFile(OLD))
        half_saved(f"{folder}/overwritten.txt")
        reader.save(f"{folder}/deleted.txt", ContentFile(OLD))
        client.delete_object(Bucket=bucket, Key=key(reader, f"{folder}/deleted.txt"))
        reader.pair.journal.announce(Kind.DELETE, f"{folder}/deleted.txt", phase=phase).leave()
        half_saved(f"{folder}/created.txt")
        return folder

    def check(folder: str, point: int) -> None:
        for name, content in truth.items():
            assert seen(reader, f"{folder}/{name}") == content, f"killed before line event {point}"
        if point:
            assert repaired(reader).complete
            for name, content in truth.items():
                assert seen(reader, f"{folder}/{name}") == content
        assert_sides_equal(reader, f"{folder}/")

    def repair_all(storage: DualWriteStorage, folder: str) -> object:
        storage.pair.grace = 0.0
        return repair(storage, never_stop(), ignore, workers=1)

    died = kill_everywhere(prepare, repair_all, victim(lab, phase), check, sample=8 if phase == "dual" else 12)
    record_property("kills", died)


@pytest.mark.parametrize("phase", ["dual", "dual-strict"])
def test_killed_backfill(lab: Lab, phase: str, record_property: Callable[[str, object], None]) -> None:
    reader = lab.storage(phase, allow_overwrite=True)
    series = f"{phase}/backfill-"
    contents = {
        "missing.txt": b"a",
        "stale.txt": b"bb",
        "equal.txt": b"ccc",
        "differs.txt": b"dddd",
        "certified.txt": b"e",
    }

    def prepare() -> str:
        folder = series + lab.name().partition("/")[0]
        for name in ("stale.txt", "certified.txt"):
            reader.save(f"{folder}/{name}", ContentFile(contents[name]))
        for number, name in enumerate(("missing.txt", "stale.txt", "equal.txt", "differs.txt"), 1):
            path = Path(reader.location, folder, name)
            path.write_bytes(contents[name])
            os.utime(path, ns=(number, number))
        put_object(reader, f"{folder}/equal.txt", contents["equal.txt"])
        put_object(reader, f"{folder}/differs.txt", b"DDDD")
        return folder

    def check(folder: str, point: int) -> None:
        for name, content in contents.items():
            assert seen(reader, f"{folder}/{name}") == content, f"killed before line event {point}"

    def backfill(storage: DualWriteStorage, folder: str) -> object:
        # Settled files only, or the run would wait for them.
        return Backfill(storage, prefix=f"{folder}/", workers=1, clock=lambda: 4e9).run(never_stop(), ignore)

    died = kill_everywhere(prepare, backfill, victim(lab, phase), check, sample=8 if phase == "dual" else 16)
    record_property("kills", died)
    assert repaired(reader).complete
    assert reader.pair.journal.count() == 0
    again = Backfill(reader, prefix=series, clock=lambda: 4e9).run(never_stop(), ignore)
    assert again.complete
    assert again.files == len(contents) * (died + 1)
    assert_sides_equal(reader, series)


def test_killed_at_the_first_use_of_a_volume(
    lab: Lab, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The journal's folder, key and volume id are made by whoever comes first, and may be half made."""
    shared = victim(lab, "dual")

    def on(root: str) -> DualWriteStorage:
        storage = DualWriteStorage(root, phase="dual", provider="seaweedfs")
        storage.pair.s3 = shared.pair.s3 if os.getpid() != parent else lab.storage("dual").pair.s3
        return storage

    def prepare() -> str:
        root = tmp_path / lab.name().replace("/", "-")
        root.mkdir()
        return str(root)

    def name_in(root: str) -> str:
        return f"first/{os.path.basename(root)}"

    def check(root: str, point: int) -> None:
        storage = on(root)
        assert seen(storage, name_in(root)) in (None, NEW), f"killed before line event {point}"
        other = storage.save(name_in(root), ContentFile(OLD))
        assert repaired(storage).complete
        assert seen(storage, other) == OLD
        assert_sides_equal(storage, name_in(root))

    def first_save(storage: DualWriteStorage, root: str) -> object:
        return on(root).save(name_in(root), ContentFile(NEW))

    parent = os.getpid()
    record_property("kills", kill_everywhere(prepare, first_save, shared, check, sample=3))
    assert on_s3(shared, "first/")
