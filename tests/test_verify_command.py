"""``dualstorage_verify`` as a shell sees it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection

from django_dualstorage.management.commands import dualstorage_verify
from django_dualstorage.models import Run
from django_dualstorage.operations.verify import Verify
from django_dualstorage.protocol.operation import Locked
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import put_object
from tests.support.backfills import write
from tests.support.commands import dualstorage

pytestmark = pytest.mark.django_db


def test_nothing_wrong(default_storage: DualWriteStorage) -> None:
    default_storage.save("a.txt", ContentFile(b"content"))
    ran = dualstorage("verify")
    assert ran.code == 0
    assert "1 file and 1 object compared" in ran.out
    assert "Nothing is wrong." in ran.out
    assert f"Kept as run {Run.objects.get().id}." in ran.out
    assert "Nothing is wrong there." in dualstorage("verify", "--prefix", "a").out


def test_what_could_not_be_judged_is_not_called_fine(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    default_storage.save("a.txt", ContentFile(b"content"))
    monkeypatch.setattr(default_storage.pair.locks, "_timeout", 0.01)
    with Locked(default_storage.pair, "a.txt"):
        for quiet in ("1", "0"):
            ran = dualstorage("verify", "-v", quiet)
            assert ran.code == 1
            assert "1 name written to all the time and not judged. Run the command again" in ran.out
            assert "Nothing is wrong with what was judged, which is not everything." in ran.out
            assert "Nothing is wrong." not in ran.out
    assert dualstorage("verify").code == 0


def test_table_names_and_the_next_command(default_storage: DualWriteStorage) -> None:
    for number in range(5):
        write(default_storage, f"{number}.txt")
    put_object(default_storage, "only\n.txt", b"content")
    ran = dualstorage("verify")
    assert ran.code == 1
    assert re.search(r"^ +5  missing-on-s3$", ran.out, re.MULTILINE)
    assert "missing-on-s3: manage.py dualstorage_backfill" in ran.out
    assert "... and 2 more; --json has all." in ran.out
    assert "manage.py dualstorage_verify --fix" in ran.out
    fixed = dualstorage("verify", "--fix")
    assert "Fixing, as backfill and repair would: 5 missing-on-s3." in fixed.err
    assert "5  uploaded by --fix" in fixed.out


def test_name_with_a_line_break_adds_no_line(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a\nb.txt")
    assert "a\\nb.txt: " in dualstorage("verify").out


def test_json_is_one_object_with_everything(default_storage: DualWriteStorage) -> None:
    for number in range(5):
        write(default_storage, f"{number}.txt")
    ran = dualstorage("verify", "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["counts"] == {"missing-on-s3": 5}
    assert sorted(one["name"] for one in found["discrepancies"]) == [f"{number}.txt" for number in range(5)]
    assert found["discrepancies"][0].keys() == {"kind", "name", "side", "detail"}
    assert json.loads(dualstorage("verify", "--json", "--fix").out)["discrepancies"] == []


def test_deep_says_what_it_read_and_which_sample(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    dualstorage("backfill")
    assert "1 file read on both sides" in dualstorage("verify", "--deep").out
    ran = dualstorage("verify", "--deep", "--sample", "50%", "--seed", "7")
    assert ran.code == 0
    assert "of a sample of 0.5 (--seed 7)" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sample", "5%"],
        ["--deep", "--sample", "0%"],
        ["--deep", "--sample", "101%"],
        ["--deep", "--sample", "half"],
        ["--deep", "--seed", "-1"],
        ["--prefix", "/etc"],
        ["--storage", "staticfiles"],
    ],
)
def test_wrong_usage(default_storage: DualWriteStorage, arguments: list[str]) -> None:
    assert dualstorage("verify", *arguments).code in {1, 2}  # 1: what call_command makes of argparse's errors


@pytest.mark.parametrize(("text", "expected"), [("5%", 0.05), ("100%", 1.0), ("0.05", 0.05), (".5", 0.5), ("1", 1.0)])
def test_shares(text: str, expected: float) -> None:
    assert dualstorage_verify.share(text) == pytest.approx(expected)


def test_refused_on_another_volume(default_storage: DualWriteStorage, media_root: Path) -> None:
    write(default_storage, "a.txt")
    dualstorage("backfill")
    (media_root / ".dualstorage" / "volume").unlink()
    default_storage.pair.journal.__dict__.pop("volume_id", None)
    default_storage.records.forget()
    ran = dualstorage("verify")
    assert ran.code == 3
    assert "volume" in ran.err


def test_s3_that_cannot_be_used(default_options: dict[str, Any], media_root: Path) -> None:
    default_options["s3"] = {**default_options["s3"], "secret_key": "wrong"}
    (media_root / "a.txt").write_bytes(b"content")
    assert dualstorage("verify").code == 4


def test_interrupted(default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        write(default_storage, f"{number}.txt")
    original = Verify.run

    def stopped(self: Verify, stop: Any, on_result: Any) -> Any:
        return original(self, stop, lambda result: stop.ask())

    monkeypatch.setattr(Verify, "run", stopped)
    ran = dualstorage("verify")
    assert ran.code == 130
    assert "Stopped before the end" in ran.out


@pytest.mark.django_db(transaction=True)
def test_without_tables_it_works_and_says_so(default_storage: DualWriteStorage) -> None:
    from django_dualstorage.models import Discrepancy

    write(default_storage, "a.txt")
    with connection.schema_editor() as editor:
        editor.delete_model(Discrepancy)
        editor.delete_model(Run)
    try:
        ran = dualstorage("verify")
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(Run)
            editor.create_model(Discrepancy)
    assert ran.code == 1
    assert "missing-on-s3" in ran.out
    assert "not kept in the database" in ran.out
    assert "manage.py migrate" in ran.out
    assert os.path.exists(os.path.join(default_storage.location, "a.txt"))
