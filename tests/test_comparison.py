"""The comparison: what it says of each name, whatever the order of the listing, and with what memory."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dualstorage.core.objects import ListedObject
from django_dualstorage.core.report import Outcome
from django_dualstorage.core.selection import Rule, Selection
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.exceptions import SpoolError
from django_dualstorage.inventory import Certified, Inventory
from django_dualstorage.operations.comparison import Compared, Comparison, compare

MTIME = 1_000_000_000


def write(root: Path, *names: str, size: int = 1, mtime: int = MTIME) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(mtime, mtime))


def listing(*names: str, size: int = 1, etag: str = '"e"') -> list[tuple[str, ListedObject]]:
    return [(name, ListedObject(f"there/{name}", size, etag)) for name in names]


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return Inventory(str(tmp_path / ".dualstorage"), "endpoint/bucket/there")


@settings(max_examples=30, deadline=None)
@given(
    local=st.sets(st.sampled_from(["a", "b/c", "b-c", "b/ä", "d/e/f"])),
    listed=st.sets(st.sampled_from(["a", "b/c", "b-c", "b/ä", "d/e/f", "only/here"])),
    known=st.sets(st.sampled_from(["a", "b/c", "b-c", "b/ä", "d/e/f", "only/here"])),
    seed=st.integers(),
)
def test_every_name_once_with_what_both_sides_have(
    local: set[str], listed: set[str], known: set[str], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "media")
        root.mkdir()
        inventory = Inventory(folder, "here")
        inventory.note(Certified(name, 1, MTIME, "e") for name in known)
        write(root, *local)
        shuffled = listing(*listed)
        random.Random(seed).shuffle(shuffled)
        found = list(compare(str(root), shuffled, inventory))
    assert sorted(one.name for one in found) == sorted(local | listed)
    for one in found:
        assert one.local == (Stamp(1, MTIME) if one.name in local else None)
        assert one.listed == (listing(one.name)[0][1] if one.name in listed else None)
        assert one.certified == (one.name in local & listed & known)
        assert one.odd is None
    sides = [one.local is None for one in found]
    assert sides == sorted(sides)  # what only S3 has comes last


@pytest.mark.parametrize(
    "row",
    [
        Certified("a", 2, MTIME, "e"),
        Certified("a", 1, MTIME + 1, "e"),
        Certified("a", 1, MTIME, "f"),
        Certified("b", 1, MTIME, "e"),
    ],
)
def test_only_the_very_version_under_the_very_etag_is_certified(
    media_root: Path, inventory: Inventory, row: Certified
) -> None:
    write(media_root, "a")
    inventory.note([row])
    assert [one.certified for one in compare(str(media_root), listing("a"), inventory)] == [False]
    inventory.note([Certified("a", 1, MTIME, "e")])
    assert [one.certified for one in compare(str(media_root), listing("a"), inventory)] == [True]
    assert [one.certified for one in compare(str(media_root), listing("a"), None)] == [False]


def test_object_without_etag_or_of_another_size_is_never_certified(media_root: Path, inventory: Inventory) -> None:
    write(media_root, "a")
    inventory.note([Certified("a", 1, MTIME, "")])
    assert [one.certified for one in compare(str(media_root), listing("a", etag=""), inventory)] == [False]
    inventory.note([Certified("a", 1, MTIME, "e")])
    assert [one.certified for one in compare(str(media_root), listing("a", size=2), inventory)] == [False]


def test_certified_files_can_be_counted_only(media_root: Path, inventory: Inventory) -> None:
    names = [f"{number}" for number in range(2500)]
    write(media_root, *names, size=3)
    inventory.note(Certified(name, 3, MTIME, "e") for name in names[1:])
    comparison = Comparison(listing(*names, "only", size=3), inventory)
    batches = list(comparison.of(str(media_root), count_certified=True))
    comparison.close()
    assert sum(batch.unchanged for batch in batches) == 2499
    assert sum(batch.unchanged_bytes for batch in batches) == 3 * 2499
    assert [one.name for batch in batches for one in batch.others] == ["0", "only"]


def test_what_the_walk_cannot_take_is_there_with_its_reason(media_root: Path) -> None:
    os.mkfifo(media_root / "pipe")
    (media_root / "link").symlink_to("nowhere")
    write(media_root, "file")
    (media_root / "good").symlink_to("file")
    found = {one.name: one for one in compare(str(media_root), [], None)}
    assert {name: one.odd.outcome for name, one in found.items() if one.odd} == {
        "pipe": Outcome.SPECIAL,
        "link": Outcome.SYMLINK,
    }
    assert found["good"] == Compared("good", Stamp(1, MTIME), None)


def test_names_of_this_package_are_on_neither_side(media_root: Path) -> None:
    staged = "a/.0123.dualstorage-tmp"
    write(media_root, ".dualstorage/key", staged)
    assert list(compare(str(media_root), listing(".dualstorage/key", staged), None)) == []


def test_selection_is_of_both_sides(media_root: Path) -> None:
    write(media_root, "a.jpg", "b/c.tmp", "b/d.jpg")
    os.mkfifo(media_root / "pipe.tmp")
    selection = Selection([Rule(False, "*.tmp")])
    found = compare(str(media_root), listing("x.tmp", "y.jpg", "a.jpg"), None, selection=selection)
    assert sorted(one.name for one in found) == ["a.jpg", "b/d.jpg", "y.jpg"]


def test_a_local_file_that_is_left_out_does_not_make_its_object_look_alone(media_root: Path) -> None:
    write(media_root, "old")
    write(media_root, "new", mtime=MTIME * 2)
    both = listing("old", "new", "only")
    found = compare(str(media_root), both, None, selection=Selection(since_ns=MTIME + 1))
    assert [one.name for one in found] == ["new", "only"]
    found = compare(str(media_root), both, None, selection=Selection(names=iter(["old", "elsewhere"])))
    assert [one.name for one in found] == ["old"]


def test_key_listed_twice_counts_once(media_root: Path) -> None:
    assert [one.name for one in compare(str(media_root), listing("a", "a"), None)] == ["a"]


def test_inventory_damaged_while_it_is_used_is_as_empty(media_root: Path, inventory: Inventory) -> None:
    names = [f"{number}" for number in range(1500)]
    write(media_root, *names)
    inventory.note(Certified(name, 1, MTIME, "e") for name in names)
    comparison = Comparison(listing(*names), inventory)
    Path(inventory.path).write_bytes(Path(inventory.path).read_bytes()[:100] + os.urandom(100_000))
    found = [one for batch in comparison.of(str(media_root)) for one in batch.others]
    comparison.close()
    assert len(found) == 1500
    assert not any(one.certified for one in found)
    assert inventory.note([Certified("a", 1, MTIME, "e")])
    assert len(inventory) == 1


def test_no_room_for_the_listing_says_what_to_do(media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(name: str, **options: object) -> sqlite3.Connection:
        database = connect(name, **options)  # type: ignore[call-overload]
        database.execute("PRAGMA max_page_count = 8")
        return database  # type: ignore[no-any-return]

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(SpoolError, match="SQLITE_TMPDIR"):
        list(compare(str(media_root), listing(*map(str, range(5000))), None))
