"""What the commands tell a person who has mistyped something, has stopped them, or whose S3 does not work."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import DatabaseError

from django_dualstorage import records
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.engine.pool import Stop
from django_dualstorage.engine.retry import RetryingStore
from django_dualstorage.exceptions import S3Error
from django_dualstorage.hints import Kind
from django_dualstorage.management.base import DualStorageCommand
from django_dualstorage.management.commands import dualstorage_repair
from django_dualstorage.management.progress import Progress
from django_dualstorage.operations.backfill import Backfill
from django_dualstorage.operations.gate import S3Watch
from django_dualstorage.operations.probe import probe
from django_dualstorage.operations.repair import repair
from django_dualstorage.operations.verify import Verify
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import hint, put_object
from tests.support.backfills import write
from tests.support.commands import dualstorage
from tests.support.proxy import FaultProxy, Status

pytestmark = pytest.mark.django_db

CHECK = "manage.py check --deploy --database default"
FORBIDDEN = Status(403, "AccessDenied")


@pytest.fixture(autouse=True)
def _one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker waits until its result was heard of, so that who hears of it can do something to the next."""
    monkeypatch.setattr("django_dualstorage.engine.pool._MANY", 1)
    monkeypatch.setattr("django_dualstorage.engine.pool._TOO_MANY", 1)
    monkeypatch.setattr("django_dualstorage.engine.pool._LOOK_UP", 0.005)


@pytest.fixture
def proxied_storage(default_options: dict[str, Any], proxy: FaultProxy) -> DualWriteStorage:
    """The default storage over a proxy."""
    default_options["s3"] = {**default_options["s3"], "endpoint_url": proxy.endpoint_url}
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    return storage


# -- a prefix ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [["backfill"], ["backfill", "--dry-run"], ["backfill", "--reverse"], ["backfill", "--since", "1d"], ["verify"]],
    ids=" ".join,
)
def test_prefix_that_nothing_has_is_named(default_storage: DualWriteStorage, args: list[str]) -> None:
    write(default_storage, "avatars/a.txt")
    ran = dualstorage(*args, "--prefix", "avatas/")
    assert ran.code == 1
    assert "begins with 'avatas/'. Is it spelt right?" in ran.out
    assert "mounted" not in ran.out


def test_prefix_that_nothing_has_is_named_in_json(default_storage: DualWriteStorage) -> None:
    write(default_storage, "avatars/a.txt")
    ran = dualstorage("backfill", "--json", "--prefix", "avatas/")
    assert ran.code == 1
    assert "'avatas/'" in json.loads(ran.out)["error"]


def test_prefix_of_files_that_are_left_out_is_no_mistake(default_storage: DualWriteStorage) -> None:
    write(default_storage, "avatars/a.txt")
    put_object(default_storage, "old/a.txt", b"content")
    for args in (("--prefix", "avatars/", "--since", "1d"), ("--prefix", "old/")):
        ran = dualstorage("backfill", *args)
        assert ran.code == 0
        assert "No file is what was asked for" in ran.out
        assert "mounted" not in ran.out


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def stopping_after(number: int, original: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` of an operation, which is asked to stop when it has had so many results; 0: before it begins."""

    def stopped(self: Any, stop: Stop, on_result: Callable[[FileResult], None], *args: Any, **options: Any) -> Any:
        heard = itertools.count(1)

        def then_stop(result: FileResult) -> None:
            on_result(result)
            if next(heard) == number:
                stop.ask()

        if not number:
            stop.ask()
        return original(self, stop, then_stop, *args, **options)

    return stopped


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("args", [[], ["--dry-run"]], ids=["real", "dry"])
def test_stopped_backfill_says_so_and_no_more(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch, number: int, args: list[str]
) -> None:
    for number_of_file in range(60):
        write(default_storage, f"{number_of_file}.txt")
    monkeypatch.setattr(Backfill, "run", stopping_after(number, Backfill.run))
    ran = dualstorage("backfill", "--workers", "1", *args)
    assert ran.code == 130
    assert "Stopped before the end: " in ran.out
    assert "Run the command again; it does only what is left." in ran.out
    for wrong in ("Mend what", "mounted", "Run it without", "Every file"):
        assert wrong not in ran.out


def test_stopped_backfill_says_how_many_are_left_where_they_were_counted(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number_of_file in range(60):
        write(default_storage, f"{number_of_file}.txt")
    monkeypatch.setattr("django_dualstorage.management.progress.COUNT_AFTER", 0.0)
    original = Backfill.count
    counted: list[int | None] = []

    def count(self: Backfill, ended: Callable[[], bool]) -> int | None:
        counted.append(original(self, ended))
        return counted[0]

    monkeypatch.setattr(Backfill, "count", count)
    monkeypatch.setattr(Backfill, "run", stopping_after(1, Backfill.run))
    ran = dualstorage("backfill", "--workers", "1", "--json")
    found = json.loads(ran.out)
    assert ran.code == 130
    if counted:  # the run may be over before anybody has counted
        assert found["left"] == 60 - found["files"] > 0
    else:
        assert found["left"] is None


@pytest.mark.parametrize("number", [0, 1])
def test_stopped_verify_says_so_and_no_more(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for count in range(60):
        put_object(default_storage, f"{count}.txt", b"content")
    monkeypatch.setattr(Verify, "run", stopping_after(number, Verify.run))
    ran = dualstorage("verify", "--workers", "1")
    assert ran.code == 130
    assert "Stopped before the end" in ran.out
    assert "Run the command again." in ran.out
    assert ("mounted" in ran.out) == bool(number)  # it had seen all of both sides, and found no files


def test_stopped_repair_says_how_many_are_left(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in range(60):
        hint(default_storage, f"{count}.txt")
    original = repair

    def stopped(storage: DualWriteStorage, stop: Stop, on_result: Any, **options: Any) -> Any:
        def then_stop(result: FileResult) -> None:
            on_result(result)
            stop.ask()

        return original(storage, stop, then_stop, **options)

    monkeypatch.setattr(dualstorage_repair, "repair", stopped)
    ran = dualstorage("repair", "--json", "--workers", "1")
    assert ran.code == 130
    found = json.loads(ran.out)
    assert 0 < found["files"] == 60 - found["left"] < 60
    ran = dualstorage("repair", "--workers", "1")
    assert "Stopped before the end: " in ran.out
    assert " left. Run the command again" in ran.out


def test_nothing_is_finished_where_nothing_is_in_flight() -> None:
    told: list[str] = []
    stop = Stop(told.append)
    with stop.idle():
        stop._handle(2, None)
    assert stop
    assert not told
    with pytest.raises(KeyboardInterrupt):
        stop._handle(2, None)


# -- S3 that does not work ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["backfill", "repair", "verify"])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"secret_key": "incorrect"}, "SignatureDoesNotMatch"),
        ({"access_key": "nobody"}, "InvalidAccessKeyId"),
        ({"bucket_name": "no-such-bucket"}, "NoSuchBucket"),
        ({"endpoint_url": "http://127.0.0.1:1"}, "127.0.0.1:1"),
    ],
    ids=["secret", "key-id", "bucket", "down"],
)
def test_s3_that_cannot_be_used_is_told_once_with_the_next_step(
    default_options: dict[str, Any],
    name: str,
    wrong: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(RetryingStore, "_wait", lambda self, failed: None)
    default_options["s3"] = {**default_options["s3"], **wrong}
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    for number in range(3):
        write(storage, f"{number}.txt")
        storage.pair.journal.announce(Kind.SAVE, f"{number}.txt", phase="dual").leave()
    ran = dualstorage(name)
    assert ran.code == 4
    assert said in ran.err
    assert CHECK in ran.err
    assert "probe" not in ran.err
    assert "0.txt" not in ran.err
    assert ran.out == ""
    assert not [record for record in caplog.records if record.name == "django_dualstorage.command"]


def test_https_where_there_is_only_http(default_options: dict[str, Any]) -> None:
    endpoint = default_options["s3"]["endpoint_url"].replace("http://", "https://")
    default_options["s3"] = {**default_options["s3"], "endpoint_url": endpoint}
    ran = dualstorage("repair")
    assert ran.code == 0  # nothing to repair, nobody asked
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
    ran = dualstorage("repair")
    assert ran.code == 4
    assert CHECK in ran.err
    assert "SSL" in ran.err


def test_keys_that_may_only_read(proxied_storage: DualWriteStorage, proxy: FaultProxy) -> None:
    write(proxied_storage, "a.txt")
    proxy.fail(FORBIDDEN, method="PUT", times=None)
    ran = dualstorage("backfill")
    assert ran.code == 4
    assert "AccessDenied" in ran.err
    assert CHECK in ran.err
    assert "probe-" not in ran.err
    assert "a small object, written to try S3 out" in ran.err


def test_keys_that_may_only_read_where_s3_was_tried_out_before(
    proxied_storage: DualWriteStorage, proxy: FaultProxy
) -> None:
    probe(proxied_storage.pair)
    for number in range(60):
        write(proxied_storage, f"{number}.txt")
    proxy.fail(FORBIDDEN, method="PUT", times=None)
    ran = dualstorage("backfill", "--workers", "1", "--json")
    assert ran.code == 4
    assert "S3 has refused to take 5 files in a row" in ran.err
    found = json.loads(ran.out)
    assert found["counts"] == {"failed": 5}
    assert CHECK in found["problems"][0]["detail"]
    assert "refused" in found["error"]


def test_file_that_s3_refuses_is_no_reason_to_end(proxied_storage: DualWriteStorage, proxy: FaultProxy) -> None:
    probe(proxied_storage.pair)
    for number in range(12):
        write(proxied_storage, f"{number}.txt")
    proxy.fail(FORBIDDEN, method="PUT", key=r"/(1|3|5|7|9|11)\.txt$", times=None)
    ran = dualstorage("backfill", "--workers", "1", "--order", "name")
    assert ran.code == 1
    assert "6  failed" in ran.out
    assert "6  uploaded" in ran.out


def test_objects_that_may_not_be_read_do_not_end_it(proxied_storage: DualWriteStorage, proxy: FaultProxy) -> None:
    probe(proxied_storage.pair)
    for number in range(12):
        write(proxied_storage, f"{number}.txt")
        put_object(proxied_storage, f"{number}.txt", b"of another account")
    write(proxied_storage, "z.txt")
    proxy.fail(FORBIDDEN, method="HEAD", times=None)
    ran = dualstorage("backfill", "--workers", "1", "--order", "name")
    assert ran.code == 1
    assert "12  failed" in ran.out
    assert "1  uploaded" in ran.out
    assert CHECK in ran.out
    ran = dualstorage("verify", "--workers", "1")
    assert ran.code == 1
    assert "12  failed" in ran.out
    assert CHECK in ran.out


def test_keys_that_are_not_there(default_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    default_options["s3"] = {**default_options["s3"], "access_key": None, "secret_key": None}
    for name in ("backfill", "verify"):
        ran = dualstorage(name)
        assert ran.code == 4
        assert "no credentials were found" in ran.err
        assert CHECK in ran.err


def test_refusals_are_counted_until_s3_takes_something(default_storage: DualWriteStorage) -> None:
    watch = S3Watch(default_storage.pair)
    refused = FileResult("a.txt", Outcome.FAILED, detail="403", refused=True)
    for result in (*[refused] * 4, FileResult("b.txt", Outcome.UPLOADED), *[refused] * 4):
        watch.hear(result)
    watch.hear(FileResult("c.txt", Outcome.CERTIFIED))  # which S3 had, so it says nothing
    with pytest.raises(S3Error, match=r"5 files in a row\. The last: a\.txt: 403"):
        watch.hear(refused)


@pytest.mark.parametrize("name", ["backfill", "repair"])
def test_what_was_done_before_s3_died_is_told(
    proxied_storage: DualWriteStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    probe(proxied_storage.pair)
    for number in range(60):
        write(proxied_storage, f"{number}.txt")
        proxied_storage.pair.journal.announce(Kind.SAVE, f"{number}.txt", phase="dual").leave()
    original = Progress.__call__

    def then_dead(self: Progress, result: FileResult) -> None:
        original(self, result)
        monkeypatch.setattr(type(proxied_storage.pair.s3), "times_given_up", 1)

    monkeypatch.setattr(Progress, "__call__", then_dead)
    monkeypatch.setattr(type(proxied_storage.pair.s3), "times_given_up", 0)
    ran = dualstorage(name, "--workers", "1")
    assert ran.code == 4
    assert "uploaded" in ran.out
    assert "done with before the command ended. Run it again; it does only what is left." in ran.out
    assert "S3 has failed repeatedly" in ran.err
    assert "mounted" not in ran.out


def test_database_that_fails_at_the_end(default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*args: object, **options: object) -> None:
        raise DatabaseError("database is locked")

    write(default_storage, "a.txt")
    monkeypatch.setattr(records, "set_certified", locked)
    ran = dualstorage("backfill")
    assert ran.code == 1
    assert "The database gave an error: database is locked. Run the command again" in ran.err
    assert "1  uploaded" in ran.out


# -- a dry run ---------------------------------------------------------------------------------------------------------


def test_dry_run_with_nothing_to_copy_does_not_ask_for_a_run(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    assert "Run it without --dry-run to copy." in dualstorage("backfill", "--dry-run").out
    dualstorage("backfill")
    ran = dualstorage("backfill", "--dry-run")
    assert ran.code == 0
    assert "There is nothing to copy. A run without --dry-run notes that the copy is complete." in ran.out
    assert "would copy" not in ran.out
    assert "There is nothing to copy.\n" in dualstorage("backfill", "--dry-run", "--prefix", "a").out


def test_dry_run_with_problems_only(default_storage: DualWriteStorage) -> None:
    os.mkfifo(os.path.join(default_storage.location, "pipe"))
    ran = dualstorage("backfill", "--dry-run")
    assert ran.code == 1
    assert "nothing to copy but what is named above" in ran.out
    write(default_storage, "a.txt")
    assert "Mend what is named above first, or leave it out" in dualstorage("backfill", "--dry-run").out


def test_dry_run_counts_the_hints_that_a_run_would_have_to_leave(
    proxied_storage: DualWriteStorage, proxy: FaultProxy
) -> None:
    proxied_storage.pair.s3.honours_conditions  # noqa: B018  connects, so that no probe is refused below
    proxy.fail(Status(503), method="PUT", times=None)
    for name in ("a.txt", "b.txt"):
        proxied_storage.save(name, ContentFile(b"content"))
    proxy.clear_faults()
    proxied_storage.pair.journal.announce(Kind.SAVE, "c.txt", phase="dual").leave()  # has sent nothing
    write(proxied_storage, "c.txt")
    dry = json.loads(dualstorage("backfill", "--dry-run", "--json").out)
    assert dry["pending_hints"] == 2
    assert json.loads(dualstorage("backfill", "--json").out)["pending_hints"] == 2


# -- a link to a folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("glob", ["shared", "/shared", "shared/", "shared/**"])
def test_link_to_a_folder_can_be_left_out_and_then_nothing_is_called_complete(
    default_storage: DualWriteStorage, tmp_path: Path, glob: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_bytes(b"content")
    Path(default_storage.location, "shared").symlink_to(tmp_path / "elsewhere")
    write(default_storage, "a.txt")
    ran = dualstorage("backfill")
    assert ran.code == 1
    assert "leave it out with --exclude" in ran.out
    assert "move" not in ran.out
    ran = dualstorage("backfill", "--exclude", glob)
    assert ran.code == 0
    assert "symlink" not in ran.out + dualstorage("backfill", "--dry-run", "--exclude", glob).out
    assert "Every file there is on S3." in ran.out
    # url() must not give out S3's address for shared/b.txt, which is not there.
    assert not default_storage.records.known().certified
    assert default_storage.url("shared/b.txt") == "/media/shared/b.txt"


def test_link_to_a_folder_in_an_included_folder_stays_a_problem(
    default_storage: DualWriteStorage, tmp_path: Path
) -> None:
    write(default_storage, "photos/a.txt")
    Path(default_storage.location, "photos/shared").symlink_to(tmp_path)
    assert dualstorage("backfill", "--include", "photos/").code == 1
    assert dualstorage("backfill", "--exclude", "photos/shared/", "--include", "photos/").code == 0


# -- watching ----------------------------------------------------------------------------------------------------------


def watched(monkeypatch: pytest.MonkeyPatch, *between: Callable[[], object]) -> tuple[list[str], str]:
    """The lines that ``repair --watch`` prints, with something done after each round but the last; and its stderr."""
    steps = iter(between)

    def pause(self: object, seconds: int, stop: Stop) -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is None

    monkeypatch.setattr(dualstorage_repair.Command, "_pause", pause)
    ran = dualstorage("repair", "--watch")
    assert ran.code == 0
    return ran.out.splitlines(), ran.err


def nothing() -> None:
    """Between two rounds."""


def test_watch_prints_only_what_changes(
    proxied_storage: DualWriteStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fail(Status(503), method="PUT", times=None)
    proxied_storage.save("a.txt", ContentFile(b"content"))
    proxy.clear_faults()

    def another() -> None:
        write(proxied_storage, "b.txt")
        proxied_storage.pair.journal.announce(Kind.SAVE, "b.txt", phase="dual").leave()

    def patience_ends() -> None:
        proxied_storage.pair.grace = 0

    lines, _ = watched(monkeypatch, nothing, another, nothing, patience_ends, nothing)
    assert lines == ["1 uploaded, 1 name waiting", "1 uploaded, 1 name waiting", "No name waits any more."]


def test_watch_tells_a_problem_once(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkfifo(os.path.join(default_storage.location, "pipe"))
    default_storage.pair.journal.announce(Kind.SAVE, "pipe", phase="dual").leave()
    lines, _ = watched(monkeypatch, nothing, nothing, nothing)
    assert lines[0].startswith("1 problem")
    assert len(lines) == 1
    assert len([record for record in caplog.records if record.name == "django_dualstorage.command"]) == 1


def test_watch_goes_on_while_s3_is_down_and_says_so_once(
    proxied_storage: DualWriteStorage, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(proxied_storage, "a.txt")
    proxied_storage.pair.journal.announce(Kind.SAVE, "a.txt", phase="dual").leave()
    proxy.fail(Status(503), times=None)
    lines, err = watched(monkeypatch, nothing, nothing, proxy.clear_faults, nothing)
    assert [line for line in lines if line.endswith("Watching on.")] == lines[:1]
    assert lines[1:] == ["1 uploaded", "S3 can be used again."]
    assert "again in" not in err


# -- small things ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["backfill", "repair", "verify"])
def test_other_storage_is_answered_with_those_that_fit(default_storage: DualWriteStorage, name: str) -> None:
    ran = dualstorage(name, "--storage", "staticfiles")
    assert ran.code == 2
    assert "These are: 'default'; name one with --storage." in ran.err
    assert "BACKEND" not in ran.err


def test_storage_where_none_fits(default_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(storages.backends, "default")
    ran = dualstorage("repair", "--storage", "staticfiles")
    assert ran.code == 2
    assert "None is: set the BACKEND of the storage for uploads" in ran.err


def test_nothing_to_repair(default_storage: DualWriteStorage) -> None:
    ran = dualstorage("repair")
    assert (ran.code, ran.out) == (0, "There is nothing to repair.\n")


@pytest.mark.parametrize("name", ["backfill", "repair", "verify"])
def test_verbosity_0_says_nothing_if_all_is_fine(default_storage: DualWriteStorage, name: str) -> None:
    default_storage.save("a.txt", ContentFile(b"content"))
    ran = dualstorage(name, "--verbosity", "0")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_verbosity_0_prints_the_problems(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    os.mkfifo(os.path.join(default_storage.location, "pipe"))
    lines = dualstorage("backfill", "--verbosity", "0").out.splitlines()
    assert lines[0].split() == ["1", "special"]
    assert lines[1].startswith("  pipe: is a socket, pipe or device")
    assert lines[2].startswith("Mend what is named above")
    write(default_storage, "b.tmp")
    out = dualstorage("verify", "--verbosity", "0").out
    assert "special" in out
    assert "temporary" not in out
    assert "compared" not in out


def test_problems_are_told_once_in_one_place(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(os.path.join(default_storage.location, "pipe"))
    assert "pipe: is a socket" in dualstorage("backfill").out  # no files at all, as far as the command can see
    monkeypatch.setattr("django_dualstorage.management.base._descriptor", lambda wrapper: 1)
    monkeypatch.setattr("django_dualstorage.management.base.reaches_stderr", lambda: True)
    ran = dualstorage("backfill")
    assert "pipe: " not in ran.out
    assert "They are named above; --json has the first 10,000." in ran.out
    monkeypatch.setattr("django_dualstorage.management.base.reaches_stderr", lambda: False)
    assert "pipe: is a socket" in dualstorage("backfill").out


def test_where_the_log_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from django_dualstorage.management import progress

    alone = logging.getLogger("alone")
    monkeypatch.setattr(alone, "propagate", False)
    monkeypatch.setattr(progress, "logger", alone)
    assert progress.reaches_stderr()  # by logging's handler of last resort
    to_file = logging.FileHandler(tmp_path / "log", delay=True)
    monkeypatch.setattr(alone, "handlers", [to_file])
    assert not progress.reaches_stderr()
    monkeypatch.setattr(alone, "handlers", [to_file, logging.StreamHandler()])
    assert progress.reaches_stderr()


def test_report_does_not_send_a_person_in_a_circle(
    proxied_storage: DualWriteStorage, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        write(proxied_storage, f"{number}.txt")
        proxied_storage.pair.journal.announce(Kind.SAVE, f"{number}.txt", phase="dual").leave()
    proxy.fail(Status(503), method="HEAD", times=None)
    ran = dualstorage("repair", "--workers", "1")
    assert ran.code == 4
    assert "dualstorage_repair" not in ran.out + ran.err + caplog.text
    assert "in 15 minutes" not in ran.out + ran.err


def test_what_a_command_has_no_handler_for_is_not_hidden(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: DualStorageCommand, *args: object, **options: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(dualstorage_repair.Command, "run", broken)
    with pytest.raises(ZeroDivisionError):
        dualstorage("repair")
