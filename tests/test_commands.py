"""The commands: what they print where, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection

from django_dualstorage.engine.pool import Stop
from django_dualstorage.hints import Kind
from django_dualstorage.management import progress
from django_dualstorage.management.commands import dualstorage_backfill, dualstorage_repair
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import assert_sides_equal, on_s3, put_object
from tests.support.backfills import write
from tests.support.commands import dualstorage
from tests.support.proxy import FaultProxy, Status

pytestmark = pytest.mark.django_db


def test_backfill_says_what_it_did(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    write(default_storage, "b/c.txt")
    put_object(default_storage, "a.txt", b"content")
    put_object(default_storage, "only.txt", b"content")
    dry = dualstorage("backfill", "--dry-run")
    assert dry.code == 0
    assert "nothing changed" in dry.out
    ran = dualstorage("backfill")
    assert ran.code == 0
    assert "1  adopted" in ran.out
    assert "1  uploaded" in ran.out
    assert "2 files in" in ran.out
    assert "1 object on S3 without a local file" in ran.out
    assert "Every file is on S3." in ran.out
    assert "Every file there is on S3." in dualstorage("backfill", "--prefix", "b/", "--workers", "1").out


def test_backfill_of_an_empty_root_asks_for_the_volume(default_storage: DualWriteStorage) -> None:
    ran = dualstorage("backfill")
    assert ran.code == 0
    assert "is its volume mounted?" in ran.out


def test_json_is_one_object_and_nothing_else(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    os.mkfifo(os.path.join(default_storage.location, "pipe"))
    ran = dualstorage("backfill", "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["counts"] == {"special": 1, "uploaded": 1}
    assert found["problems"] == [
        {"name": "pipe", "reason": "special", "detail": "is a socket, pipe or device, not a file; remove it"}
    ]
    repaired = dualstorage("repair", "--json")
    assert repaired.code == 0
    assert json.loads(repaired.out)["files"] == 0


def test_json_stays_clean_beside_migrations_that_were_not_applied(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'auth'")
    assert json.loads(dualstorage("backfill", "--json").out)["files"] == 1


def test_problems_are_named_and_a_long_list_is_cut(default_storage: DualWriteStorage) -> None:
    for number in range(12):
        os.mkfifo(os.path.join(default_storage.location, f"pipe{number}"))
    ran = dualstorage("backfill")
    assert ran.code == 1
    assert "12  special" in ran.out
    assert ran.out.count("remove it") == 10
    assert "... and 2 more; --json has the first 10,000." in ran.out
    assert "Mend what is named above" in ran.out
    assert len(json.loads(dualstorage("backfill", "--json").out)["problems"]) == 12


def test_name_cannot_write_to_the_terminal(default_storage: DualWriteStorage, caplog: pytest.LogCaptureFixture) -> None:
    write(default_storage, "\x1b]0;title\x07\nFAKE LINE.txt")
    ran = dualstorage("backfill")
    assert ran.code == 1
    for shown in (ran.out, ran.err, caplog.text):
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "\nFAKE LINE" not in shown
    assert "title" in ran.out


def test_unclean_answers_are_pending(
    default_options: dict[str, Any], proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    default_options["s3"] = {**default_options["s3"], "endpoint_url": proxy.endpoint_url}
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    storage.save("a.txt", ContentFile(b"old"))
    proxy.fail(Status(503), method="DELETE")
    storage.delete("a.txt")
    ran = dualstorage("repair")
    assert ran.code == 0
    assert "1 name with hints looked at" in ran.out
    assert "1 name must wait" in ran.out
    assert "Run it again in 15 minutes." in ran.out
    write(storage, "a.txt", b"content")
    assert "1 name to be looked at by manage.py dualstorage_repair." in dualstorage("backfill").out


def test_interrupted_at_once(default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dualstorage_repair, "repair", interrupted)
    ran = dualstorage("repair")
    assert ran.code == 130
    assert "run it again" in ran.err


def test_watch_repairs_what_comes_and_ends_when_asked(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds: list[int] = []

    def pause(self: object, seconds: int, stop: Stop) -> bool:
        rounds.append(seconds)
        if len(rounds) == 2:
            assert_sides_equal(default_storage)
            stop.ask()
            return original(self, seconds, stop)  # type: ignore[arg-type]
        default_storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
        write(default_storage, "a.txt")
        return original(self, 0, stop)  # type: ignore[arg-type]

    original = dualstorage_repair.Command._pause
    monkeypatch.setattr(dualstorage_repair.Command, "_pause", pause)
    ran = dualstorage("repair", "--watch", "--interval", "7")
    assert ran.code == 0
    assert rounds == [7, 7]
    assert ran.out.count("uploaded") == 1


def test_lines_of_progress_where_there_is_no_terminal(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    monkeypatch.setattr(progress, "_TICK", 0.001)
    for number in range(3):
        write(default_storage, f"{number}.txt")
    assert re.search(r"^Copying: \d files so far, .* files/s, .*B/s$", dualstorage("backfill").err, re.MULTILINE)


def test_globs_decide_in_the_order_in_which_they_were_given(default_storage: DualWriteStorage) -> None:
    for name in ("a.jpg", "keep.tmp", "b.tmp", "cache/c.jpg"):
        write(default_storage, name)
    globs = ("--include", "keep.*", "--exclude", "*.tmp", "--exclude", "cache/", "--include", "*")
    assert dualstorage("backfill", *globs).code == 0
    assert sorted(on_s3(default_storage)) == ["a.jpg", "keep.tmp"]
    assert (
        "2 files in" in dualstorage("backfill", "--exclude", "*.tmp", "--include", "*.jpg", "--since", "1969-12-01").out
    )
    assert "0 files in" in dualstorage("backfill", "--since", "1h").out


def test_plan_says_how_much_and_how_long(default_storage: DualWriteStorage) -> None:
    for number in range(25):
        write(default_storage, f"a/{number}.txt", b"x" * 1000)
    dry = dualstorage("backfill", "--dry-run")
    assert "A run would copy 25 files, 25.0 kB." in dry.out
    assert "nobody knows yet" in dry.out
    assert dualstorage("backfill").code == 0
    write(default_storage, "b.txt")
    dry = dualstorage("backfill", "--dry-run")
    assert "A run would copy 1 file, 7 B." in dry.out
    assert re.search(r"At the speed of the last run that takes about \d+ s\.", dry.out)
    assert dualstorage("backfill", "--dry-run", "--json").code == 0


def test_size_claims_no_more_than_it_has_seen(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt", b"1234")
    put_object(default_storage, "a.txt", b"abcd")
    ran = dualstorage("backfill", "--compare", "size")
    assert ran.code == 0
    assert "1  same-size" in ran.out
    assert "whether it is the right one was not asked" in ran.out
    assert "1  replaced" in dualstorage("backfill", "--compare", "hash", "--order", "largest").out


def test_reverse_brings_files_home(default_storage: DualWriteStorage) -> None:
    put_object(default_storage, "a.txt", b"content")
    write(default_storage, "local.txt")
    ran = dualstorage("backfill", "--reverse")
    assert ran.code == 0
    assert "1  brought-home" in ran.out
    assert "1 local file not on S3" in ran.out
    assert "The disk has every file that S3 has there." in ran.out


def test_time_that_is_over_is_told(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    put_object(default_storage, "a.txt", b"")
    ran = dualstorage("backfill", "--max-duration", "0.000001s")
    assert ran.code == 1
    assert "--max-duration was over" in ran.out


def test_limits_hold(default_storage: DualWriteStorage) -> None:
    for number in range(6):
        write(default_storage, f"{number}.bin", b"x" * 100_000)
    started = time.monotonic()
    assert dualstorage("backfill", "--bandwidth", "400K").code == 0
    assert time.monotonic() - started > 0.2  # 400 kB may go at once, and the last 100 need not wait


def test_only_names_that_rows_hold(default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dualstorage_backfill, "referenced_names", lambda storage: iter(["a.txt", "gone.txt"]))
    write(default_storage, "a.txt")
    write(default_storage, "orphan.txt")
    ran = dualstorage("backfill", "--referenced-only")
    assert ran.code == 0
    assert "Every file there is on S3." in ran.out
    assert list(on_s3(default_storage)) == ["a.txt"]


@pytest.mark.parametrize(
    "args",
    [
        ("--bandwidth", "fast"),
        ("--max-duration", "soon"),
        ("--since", "yesterday"),
        ("--include", "/"),
        ("--compare", "luck"),
        ("--order", "random"),
        ("--tps", "0"),
        ("--reverse", "--compare", "hash"),
        ("--reverse", "--order", "newest"),
    ],
)
def test_wrong_options_are_usage(default_storage: DualWriteStorage, args: tuple[str, ...]) -> None:
    ran = dualstorage("backfill", *args)
    assert ran.code in {1, 2}  # call_command makes a CommandError of what a shell sees as 2
    assert args[0] in ran.err
    assert ran.out == ""


def test_command_in_another_thread_takes_no_signals(default_storage: DualWriteStorage) -> None:
    codes: list[int] = []

    def elsewhere() -> None:
        codes.append(dualstorage("backfill", "--dry-run").code)
        if connection.connection is not None:  # this thread's own; Django leaves those of a memory open
            connection.connection.close()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert codes == [0]
