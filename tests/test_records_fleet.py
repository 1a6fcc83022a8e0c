"""The fleet table: which process is in which phase, on which volume."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.test import override_settings
from django.utils import timezone

from django_dualstorage import records
from django_dualstorage.core.phases import Phase
from django_dualstorage.models import ProcessReport
from django_dualstorage.records import Known, Records, set_phase
from tests.support.databases import ALIAS, DATABASES, connected, migrate, sqlite
from tests.support.fork import run_in_child


@pytest.fixture
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    storages = {**settings.STORAGES, "media": {"BACKEND": "nowhere.Media"}, "other": {"BACKEND": "nowhere.Other"}}
    with django_db_blocker.unblock(), override_settings(DUALSTORAGE_DATABASE=ALIAS, STORAGES=storages):
        yield


@pytest.fixture
def _file(_unblocked: None, tmp_path: Path) -> Iterator[None]:
    """An SQLite file without tables."""
    with sqlite(tmp_path) as configuration, connected(**configuration):
        yield


@pytest.fixture(params=DATABASES)
def _database(request: pytest.FixtureRequest, _unblocked: None, tmp_path: Path) -> Iterator[None]:
    """A database with our tables."""
    with DATABASES[request.param](tmp_path) as configuration, connected(**configuration):
        migrate()
        yield


def made(alias: str = "media", pinned: Phase | None = None, volume_id: Callable[[], str] = lambda: "v1") -> Records:
    return Records(alias, pinned, volume_id, lambda: "here")


def reports() -> list[tuple[str, int, str, str]]:
    found = ProcessReport.objects.using(ALIAS).order_by("id")
    return [(report.alias, report.pid, report.phase, report.volume_id) for report in found]


def volumes() -> dict[str, list[str]]:
    found = records.separate_volumes("media")
    return {volume: [report.host for report in reports] for volume, reports in found.items()}


every_time = override_settings(DUALSTORAGE_PHASE_TTL=0, DUALSTORAGE_REPORT_INTERVAL=0)


@pytest.mark.usefixtures("_database")
def test_a_process_reports_when_its_phase_changes_and_now_and_then() -> None:
    known = made()
    with override_settings(DUALSTORAGE_PHASE_TTL=0, DUALSTORAGE_REPORT_INTERVAL=3600):
        known.known()
        assert reports() == [("media", os.getpid(), "dual", "v1")]
        ProcessReport.objects.using(ALIAS).update(volume_id="unchanged")
        known.known()
        assert reports() == [("media", os.getpid(), "dual", "unchanged")]
        set_phase("media", Phase.S3)
        known.known()
        assert reports() == [("media", os.getpid(), "s3", "")]  # on S3 alone there is no volume
    with every_time:
        ProcessReport.objects.using(ALIAS).update(last_seen=timezone.now() - timedelta(hours=2))
        known.known()
        assert ProcessReport.objects.using(ALIAS).get().last_seen > timezone.now() - timedelta(hours=1)


@every_time
@pytest.mark.usefixtures("_database")
def test_a_process_that_was_not_seen_for_a_day_is_forgotten() -> None:
    old = {"alias": "media", "host": "gone", "phase": "dual", "volume_id": "v1"}
    for pid, age in ((1, 25), (2, 23)):
        seen = timezone.now() - timedelta(hours=age)
        ProcessReport.objects.using(ALIAS).create(**old, pid=pid, last_seen=seen)
    made().known()
    assert [pid for _, pid, _, _ in reports()] == [2, os.getpid()]


@every_time
@pytest.mark.usefixtures("_database")
def test_processes_on_separate_volumes_are_told_apart() -> None:
    made().known()
    assert volumes() == {"v1": [socket.gethostname()[:255]]}
    now = timezone.now()
    for host, volume, seen in (("b", "v2", now), ("c", "", now), ("d", "v3", now - timedelta(hours=2))):
        ProcessReport.objects.using(ALIAS).create(
            alias="media", host=host, pid=1, phase="dual", volume_id=volume, last_seen=seen
        )
    assert volumes() == {"v1": [socket.gethostname()[:255]], "v2": ["b"]}
    assert records.separate_volumes("other") == {}


@every_time
@pytest.mark.usefixtures("_database")
def test_a_process_takes_back_what_it_has_reported_and_nothing_else() -> None:
    other = {"alias": "media", "host": "b", "pid": os.getpid(), "phase": "dual", "volume_id": "v1"}
    ProcessReport.objects.using(ALIAS).create(**other, last_seen=timezone.now())
    known = made()
    known.known()
    made("other").known()
    known.withdraw()
    assert [report[0] for report in reports()] == ["media", "other"]
    known.known()
    assert len(reports()) == 3
    records.withdraw_reports()
    assert ProcessReport.objects.using(ALIAS).get().host == "b"
    records.withdraw_reports()


@every_time
@pytest.mark.usefixtures("_file")
def test_a_process_that_ends_without_its_database_just_ends(caplog: pytest.LogCaptureFixture) -> None:
    migrate()
    made().known()
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"DROP TABLE {records.REPORT_TABLE}")
    records.withdraw_reports()
    assert caplog.records == []


PROCESS = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django_dualstorage"],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {name!r}}}}},
)
django.setup()
from django_dualstorage.models import ProcessReport
from django_dualstorage.records import Records
Records("media", None, lambda: "v1", str).known()
print(ProcessReport.objects.count())
"""


@pytest.mark.usefixtures("_file")
def test_a_process_that_ends_does_not_stay_in_the_table(tmp_path: Path) -> None:
    migrate()
    process = PROCESS.format(name=str(connections[ALIAS].settings_dict["NAME"]))
    ran = subprocess.run([sys.executable, "-c", process], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "1\n"
    assert reports() == []


@every_time
@pytest.mark.usefixtures("_file")
def test_a_volume_that_cannot_be_told_is_no_reason_to_fail() -> None:
    def failing() -> str:
        raise PermissionError("read-only")

    migrate()
    assert made(volume_id=failing).known() == Known(Phase.DUAL)
    assert reports() == []


@override_settings(DUALSTORAGE_PHASE_TTL=0, DUALSTORAGE_REPORT_INTERVAL=3600)
@pytest.mark.usefixtures("_file")
def test_a_child_has_a_row_of_its_own_and_sees_a_flip(tmp_path: Path) -> None:
    migrate()
    known, ready = made(), tmp_path / "ready"
    known.known()

    def wait_for_s3() -> int:
        while known.known().phase is not Phase.S3:
            ready.touch()
            time.sleep(0.01)
        return os.getpid()

    with ThreadPoolExecutor(1) as pool:
        child = pool.submit(run_in_child, wait_for_s3)
        # Nothing here may hold a lock of the database's while the other thread forks.
        while not ready.exists() and not child.done():
            time.sleep(0.01)
        set_phase("media", Phase.S3)
        pid = child.result().unwrap()
    assert reports() == [("media", os.getpid(), "dual", "v1"), ("media", pid, "s3", "")]


@every_time
@pytest.mark.usefixtures("_file")
def test_while_one_thread_asks_the_others_go_by_what_is_known() -> None:
    migrate()
    asking, answered = threading.Event(), threading.Event()

    def slow() -> str:
        asking.set()
        assert answered.wait(20)
        return "v1"

    known = made(volume_id=lambda: "v1")
    known.known()
    known._volume_id = slow
    with ThreadPoolExecutor(1) as pool:
        try:
            other = pool.submit(known.known)
            assert asking.wait(20)
            assert known.known() == Known(Phase.DUAL)
        finally:
            answered.set()
        assert other.result() == Known(Phase.DUAL)


@every_time
@pytest.mark.usefixtures("_file")
def test_threads_that_ask_first_at_once_all_get_the_answer() -> None:
    migrate()
    set_phase("media", Phase.MIRROR)
    known = made()
    with ThreadPoolExecutor(8) as pool, override_settings(DUALSTORAGE_PHASE_TTL=3600):
        assert set(pool.map(lambda _: known.known().phase, range(32))) == {Phase.MIRROR}
    assert len(reports()) == 1
