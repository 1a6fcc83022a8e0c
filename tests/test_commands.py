"""The commands: what they print where, and the exit codes that scripts rely on."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from django_dualstorage.engine.pool import Stop
from django_dualstorage.journal import Kind
from django_dualstorage.management import base
from django_dualstorage.management.commands import dualstorage_repair
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import assert_sides_equal, on_s3, put_object
from tests.support.proxy import FaultProxy, Status

pytestmark = pytest.mark.django_db


@dataclass
class Ran:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def command(name: str, *args: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command(f"dualstorage_{name}", *args, stdout=out, stderr=err, no_color=True)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    except SystemExit as leaving:
        assert isinstance(leaving.code, int)
        code = leaving.code
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture
def options(settings: Settings, media_root: Path, s3_options: dict[str, Any]) -> dict[str, Any]:
    """OPTIONS of the default storage; a test changes them before it first uses the storage."""
    options = {"location": str(media_root), "provider": "seaweedfs", "phase": "dual", "s3": s3_options}
    settings.STORAGES = {
        "default": {"BACKEND": "django_dualstorage.storage.DualWriteStorage", "OPTIONS": options},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        "broken": {"BACKEND": "nowhere.Storage"},
    }
    return options


@pytest.fixture
def storage(options: dict[str, Any]) -> DualWriteStorage:
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    return storage


def write(storage: DualWriteStorage, name: str, content: bytes = b"content") -> None:
    path = Path(storage.location, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def test_backfill_says_what_it_did(storage: DualWriteStorage) -> None:
    write(storage, "a.txt")
    write(storage, "b/c.txt")
    put_object(storage, "a.txt", b"content")
    put_object(storage, "only.txt", b"content")
    dry = command("backfill", "--dry-run")
    assert dry.code == 0
    assert "nothing changed" in dry.out
    ran = command("backfill")
    assert ran.code == 0
    assert "1  adopted" in ran.out
    assert "1  uploaded" in ran.out
    assert "2 files in" in ran.out
    assert "1 objects on S3 belong to no local file" in ran.out
    assert "Every file is on S3." in ran.out
    assert "Every file there is on S3." in command("backfill", "--prefix", "b/", "--workers", "1").out


def test_backfill_of_an_empty_root_asks_for_the_volume(storage: DualWriteStorage) -> None:
    ran = command("backfill")
    assert ran.code == 0
    assert "is its volume mounted?" in ran.out


def test_json_is_one_object_and_nothing_else(storage: DualWriteStorage) -> None:
    write(storage, "a.txt")
    os.mkfifo(os.path.join(storage.location, "pipe"))
    ran = command("backfill", "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["counts"] == {"special": 1, "uploaded": 1}
    assert found["problems"] == [
        {"name": "pipe", "reason": "special", "detail": "is a socket, pipe or device, not a file; remove it"}
    ]
    repaired = command("repair", "--json")
    assert repaired.code == 0
    assert json.loads(repaired.out)["files"] == 0


def test_json_stays_clean_beside_migrations_that_were_not_applied(storage: DualWriteStorage) -> None:
    write(storage, "a.txt")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'auth'")
    assert json.loads(command("backfill", "--json").out)["files"] == 1


def test_problems_are_named_and_a_long_list_is_cut(storage: DualWriteStorage) -> None:
    for number in range(12):
        os.mkfifo(os.path.join(storage.location, f"pipe{number}"))
    ran = command("backfill")
    assert ran.code == 1
    assert "12  special" in ran.out
    assert ran.out.count("remove it") == 10
    assert "... and 2 more; --json has them all." in ran.out
    assert "Mend what is named above" in ran.out
    assert len(json.loads(command("backfill", "--json").out)["problems"]) == 12


def test_name_cannot_write_to_the_terminal(storage: DualWriteStorage, caplog: pytest.LogCaptureFixture) -> None:
    write(storage, "\x1b]0;title\x07\nFAKE LINE.txt")
    ran = command("backfill")
    assert ran.code == 1
    for shown in (ran.out, ran.err, caplog.text):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\nFAKE LINE" not in shown
    assert "title" in ran.out


def test_unclean_answers_are_pending(
    options: dict[str, Any], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    options["s3"] = {**options["s3"], "endpoint_url": proxy.endpoint_url}
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    storage.save("a.txt", ContentFile(b"old"))
    proxy.fail(Status(503), method="DELETE")
    storage.delete("a.txt")
    ran = command("repair")
    assert ran.code == 0
    assert "1 names with hints looked at" in ran.out
    assert "Run it again in 15 minutes." in ran.out
    write(storage, "a.txt", b"content")
    assert "1 names wait for manage.py dualstorage_repair." in command("backfill").out


@pytest.mark.parametrize("name", ["backfill", "repair"])
@pytest.mark.parametrize("alias", ["nowhere", "broken", "staticfiles"])
def test_storage_that_is_not_ours_is_a_usage_error(storage: DualWriteStorage, name: str, alias: str) -> None:
    ran = command(name, "--storage", alias)
    assert ran.code == 2
    assert alias in ran.err


@pytest.mark.parametrize("args", [["--workers", "0"], ["--workers", "many"], ["--prefix"], ["--nonsense"]])
def test_wrong_arguments_are_usage_errors(storage: DualWriteStorage, args: list[str]) -> None:
    with pytest.raises((CommandError, SystemExit)):
        call_command("dualstorage_backfill", *args, stderr=io.StringIO())


@pytest.mark.parametrize("begin", ["/etc/", "../", "a/../../b", "./a"])
def test_prefix_outside_of_the_root_is_a_usage_error(storage: DualWriteStorage, begin: str) -> None:
    with pytest.raises(CommandError, match="below MEDIA_ROOT"):  # exit code 2 where it comes from the command line
        call_command("dualstorage_backfill", "--prefix", begin)


@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
def test_backfill_where_s3_is_the_truth_is_refused(options: dict[str, Any], phase: str) -> None:
    options["phase"] = phase
    ran = command("backfill")
    assert ran.code == 3
    assert "S3 is the truth" in ran.err


@pytest.mark.parametrize("name", ["backfill", "repair"])
def test_other_volume_is_refused(storage: DualWriteStorage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = storage.known
    object.__setattr__(known, "volume_id", "0" * 32)
    monkeypatch.setattr(storage.records, "known", lambda: known)
    ran = command(name)
    assert ran.code == 3
    assert "0" * 32 in ran.err
    assert "mounted" in ran.err


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
def test_s3_that_cannot_be_used(options: dict[str, Any], wrong: dict[str, Any], dry_run: list[str]) -> None:
    options["s3"] = {**options["s3"], **wrong}
    ran = command("backfill", *dry_run)
    assert ran.code == 4
    assert ran.err
    assert "wrong" not in ran.err  # a secret is not shown


def test_option_that_does_not_exist(options: dict[str, Any]) -> None:
    options["nonsense"] = 1
    ran = command("backfill")
    assert ran.code == 4
    assert "nonsense" in ran.err


def test_root_that_is_not_there(options: dict[str, Any]) -> None:
    options["location"] = os.path.join(options["location"], "nowhere")
    ran = command("backfill")
    assert ran.code == 1
    assert "mounted" in ran.err
    assert not os.path.exists(options["location"])


def test_database_without_our_tables_is_told_before_anything_is_copied(storage: DualWriteStorage) -> None:
    write(storage, "a.txt")
    with connection.cursor() as cursor:  # rolled back with the test
        cursor.execute("ALTER TABLE dualstorage_storagestate RENAME TO elsewhere")
    ran = command("backfill")
    assert ran.code == 4
    assert "manage.py migrate" in ran.err
    assert not on_s3(storage)
    assert command("backfill", "--dry-run").code == 0


def test_damaged_hint_ends_a_repair_with_a_sentence(storage: DualWriteStorage) -> None:
    storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
    (path,) = Path(storage.pair.journal.root, "hints").glob("*/*")
    path.write_text("nonsense\n")
    ran = command("repair")
    assert ran.code == 1
    assert str(path) in ran.err


def test_interrupted_at_once(storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dualstorage_repair, "repair", interrupted)
    ran = command("repair")
    assert ran.code == 130
    assert "run it again" in ran.err


def test_watch_repairs_what_comes_and_ends_when_asked(
    storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []

    def pause(self: object, seconds: int, stop: Stop) -> bool:
        rounds.append(seconds)
        if len(rounds) == 2:
            assert_sides_equal(storage)
            stop.ask()
            return original(self, seconds, stop)  # type: ignore[arg-type]
        storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
        write(storage, "a.txt")
        return original(self, 0, stop)  # type: ignore[arg-type]

    original = dualstorage_repair.Command._pause
    monkeypatch.setattr(dualstorage_repair.Command, "_pause", pause)
    ran = command("repair", "--watch", "--interval", "7")
    assert ran.code == 0
    assert rounds == [7, 7]
    assert ran.out.count("uploaded") == 1


def test_lines_of_progress_where_there_is_no_terminal(
    storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_LINE_EVERY", 0.0)
    for number in range(3):
        write(storage, f"{number}.txt")
    assert "Copying: 3 files so far" in command("backfill").err


def test_command_in_another_thread_takes_no_signals(storage: DualWriteStorage) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(command("backfill", "--dry-run").code))
    thread.start()
    thread.join()
    assert codes == [0]
