"""The commands where they cannot or must not go on: the exit codes that scripts rely on."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from django_dualstorage.hints import Kind
from django_dualstorage.models import ProcessReport, StorageState
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import on_s3
from tests.support.backfills import write
from tests.support.commands import dualstorage

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("name", ["backfill", "repair"])
@pytest.mark.parametrize("alias", ["nowhere", "broken", "staticfiles"])
def test_storage_that_is_not_ours_is_a_usage_error(default_storage: DualWriteStorage, name: str, alias: str) -> None:
    ran = dualstorage(name, "--storage", alias)
    assert ran.code == 2
    assert alias in ran.err


@pytest.mark.parametrize("args", [["--workers", "0"], ["--workers", "many"], ["--prefix"], ["--nonsense"]])
def test_wrong_arguments_are_usage_errors(default_storage: DualWriteStorage, args: list[str]) -> None:
    with pytest.raises((CommandError, SystemExit)):
        call_command("dualstorage_backfill", *args, stderr=io.StringIO())


@pytest.mark.parametrize("begin", ["/etc/", "../", "a/../../b", "./a"])
def test_prefix_outside_of_the_root_is_a_usage_error(default_storage: DualWriteStorage, begin: str) -> None:
    with pytest.raises(CommandError, match="below MEDIA_ROOT"):  # exit code 2 where it comes from the command line
        call_command("dualstorage_backfill", "--prefix", begin)


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
def test_backfill_where_s3_is_the_truth_is_refused(default_options: dict[str, Any], phase: str) -> None:
    default_options["phase"] = phase
    ran = dualstorage("backfill")
    assert ran.code == 3
    assert "S3 is the truth" in ran.err


@pytest.mark.parametrize("name", ["backfill", "repair"])
def test_other_volume_is_refused(default_storage: DualWriteStorage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = default_storage.known
    object.__setattr__(known, "volume_id", "0" * 32)
    monkeypatch.setattr(default_storage.records, "known", lambda: known)
    ran = dualstorage(name)
    assert ran.code == 3
    assert "0" * 32 in ran.err
    assert "mounted" in ran.err
    assert not ProcessReport.objects.filter(alias="default").exists()
    StorageState.objects.create(alias="default", volume_id="0" * 32)
    (command,) = re.findall(r'shell -c "(.+)"', ran.err)
    exec(command, {})
    assert StorageState.objects.get().volume_id == ""


def test_journal_that_is_not_permitted_is_not_another_volume(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = default_storage.known
    object.__setattr__(known, "volume_id", "0" * 32)
    monkeypatch.setattr(default_storage.records, "known", lambda: known)
    stat, key = os.stat, os.path.join(default_storage.pair.journal.root, "key")

    def refusing(path: Any, *args: Any, **kwargs: Any) -> os.stat_result:
        if path == key:
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", refusing)
    ran = dualstorage("backfill")
    assert ran.code == 3
    assert "Permission denied" in ran.err
    assert "chown -R" in ran.err
    assert "volume" not in ran.err


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["real", "dry"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"secret_key": "wrong"},
        {"access_key": "nobody"},
        {"bucket_name": "no-such-bucket"},
        {"bucket_name": None},
        {"endpoint_url": "http://127.0.0.1:1"},
        {"gzip": True},
        {"nonsense": 1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_s3_that_cannot_be_used(default_options: dict[str, Any], wrong: dict[str, Any], dry_run: list[str]) -> None:
    default_options["s3"] = {**default_options["s3"], **wrong}
    ran = dualstorage("backfill", *dry_run)
    assert ran.code == 4
    assert ran.err
    assert "wrong" not in ran.err  # a secret is not shown


def test_option_that_does_not_exist(default_options: dict[str, Any]) -> None:
    default_options["nonsense"] = 1
    ran = dualstorage("backfill")
    assert ran.code == 4
    assert "nonsense" in ran.err


def test_root_that_is_not_there(default_options: dict[str, Any]) -> None:
    default_options["location"] = os.path.join(default_options["location"], "nowhere")
    ran = dualstorage("backfill")
    assert ran.code == 1
    assert "mounted" in ran.err
    assert not os.path.exists(default_options["location"])


def test_database_without_our_tables_is_told_before_anything_is_copied(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    with connection.cursor() as cursor:  # rolled back with the test
        cursor.execute("ALTER TABLE dualstorage_storagestate RENAME TO elsewhere")
    ran = dualstorage("backfill")
    assert ran.code == 4
    assert "manage.py migrate" in ran.err
    assert not on_s3(default_storage)
    rehearsed = dualstorage("backfill", "--dry-run")
    assert (rehearsed.code, rehearsed.err) == (ran.code, ran.err)


def test_damaged_hint_is_named(default_storage: DualWriteStorage) -> None:
    default_storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
    (path,) = Path(default_storage.pair.journal.root, "hints").glob("*/*")
    path.write_text("nonsense\n")
    ran = dualstorage("repair")
    assert ran.code == 1
    assert str(path) in ran.out
