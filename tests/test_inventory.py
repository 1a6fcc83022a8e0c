"""The inventory: rows in bulk, from several processes, and whatever lies where its file should be."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from django_dualstorage.inventory import Certified, Inventory, Speed
from tests.support.fork import run_in_child


@pytest.fixture
def inventory(media_root: Path) -> Inventory:
    return Inventory(str(media_root / ".dualstorage"), "https://s3.example/bucket/location")


def rows(start: int, count: int) -> list[Certified]:
    return [Certified(f"{number}.jpg", number, number * 1000, f'"{number}"') for number in range(start, start + count)]


def stored(inventory: Inventory) -> list[Certified]:
    with closing(sqlite3.connect(inventory.path)) as database:
        return [Certified(*row) for row in database.execute("SELECT * FROM certified ORDER BY size")]


def test_rows_stay_and_a_later_one_replaces(inventory: Inventory) -> None:
    assert inventory.note(rows(0, 3))
    assert inventory.note([Certified("1.jpg", 1, 5, '"new"')])
    assert stored(inventory) == [rows(0, 1)[0], Certified("1.jpg", 1, 5, '"new"'), rows(2, 1)[0]]
    assert len(inventory) == 3


def test_nothing_to_note_makes_nothing(inventory: Inventory, media_root: Path) -> None:
    assert inventory.note([])
    assert inventory.speed() is None
    assert list(media_root.iterdir()) == []


def test_only_the_owner_may_read(inventory: Inventory) -> None:
    inventory.note(rows(0, 1))
    for path in (inventory.path, f"{inventory.path}-journal"):
        if os.path.exists(path):
            assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(inventory.path)).st_mode) == 0o700


def test_another_bucket_has_another_inventory(inventory: Inventory) -> None:
    inventory.note(rows(0, 1))
    for identity in (
        "https://s3.example/other/location",
        "https://s3.example/bucket/other",
        "https://other/bucket/location",
    ):
        assert len(Inventory(os.path.dirname(inventory.path), identity)) == 0
    assert len(Inventory(os.path.dirname(inventory.path), "https://s3.example/bucket/location")) == 1


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 1000, b"SQLite format 3\0" + os.urandom(10_000)])
def test_foreign_or_damaged_file_is_made_anew(inventory: Inventory, content: bytes) -> None:
    Path(inventory.path).parent.mkdir()
    Path(inventory.path).write_bytes(content)
    assert inventory.note(rows(0, 2))
    assert stored(inventory) == rows(0, 2)


def test_database_of_another_program_or_version_is_made_anew(inventory: Inventory) -> None:
    for statement in ("CREATE TABLE certified (name)", "PRAGMA user_version = 99", "PRAGMA application_id = 5"):
        inventory.note(rows(0, 1))
        with closing(sqlite3.connect(inventory.path)) as database:
            if statement.startswith("CREATE"):
                database.execute("PRAGMA application_id = 5")
                database.execute("DROP TABLE certified")
            database.execute(statement)
        assert inventory.note(rows(5, 1))
        assert stored(inventory) == rows(5, 1)


def test_damage_within_is_found_when_rows_come(inventory: Inventory) -> None:
    inventory.note(rows(0, 5000))
    content = bytearray(Path(inventory.path).read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    Path(inventory.path).write_bytes(content)
    assert inventory.note(rows(0, 2))
    assert stored(inventory) == rows(0, 2)


def test_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nowhere = Inventory(str(tmp_path / "not-mounted" / ".dualstorage"), "here")
    assert not nowhere.usable()
    assert not nowhere.note(rows(0, 1))
    assert len(nowhere) == 0
    assert "cannot be used" in caplog.text
    assert not (tmp_path / "not-mounted").exists()


def test_threads_and_processes_write_at_once(inventory: Inventory) -> None:
    def note(start: int) -> bool:
        return all(inventory.note(rows(start + part * 10, 10)) for part in range(10))

    threads = [threading.Thread(target=note, args=(start * 1000,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run_in_child(note, 5000).unwrap()
    assert len(inventory) == 400


def test_process_that_writes_for_long_is_not_taken_for_damage(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    inventory.note(rows(0, 1))
    monkeypatch.setattr("django_dualstorage.inventory._PATIENCE", 0.05)
    with closing(sqlite3.connect(inventory.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert not inventory.note(rows(1, 1))
    assert stored(inventory) == rows(0, 1)


def test_speed_of_the_last_run(inventory: Inventory) -> None:
    assert inventory.note_speed(Speed(1, 2, 3.0))
    assert inventory.note_speed(Speed(100, 1_000_000, 10.0))
    speed = inventory.speed()
    assert speed == Speed(100, 1_000_000, 10.0)
    assert speed.estimate(50, 0) == 5
    assert speed.estimate(50, 2_000_000) == 20
    assert Speed(0, 0, 1.0).estimate(5, 5) == 0


def test_many_rows_cost_little(inventory: Inventory) -> None:
    many = rows(0, 20_000)
    inventory.note(rows(0, 1))
    started = time.process_time()
    inventory.note(many)
    assert (time.process_time() - started) / len(many) < 100e-6
