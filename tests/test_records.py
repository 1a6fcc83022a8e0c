"""The phase as a process knows it, on the databases that can be reached."""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections, transaction
from django.db.utils import ConnectionHandler, DatabaseError
from django.test import override_settings
from django.utils import timezone

from django_dualstorage import records
from django_dualstorage.core.phases import Phase
from django_dualstorage.exceptions import PhaseUnknownError
from django_dualstorage.models import ProcessReport, StorageState
from django_dualstorage.records import Known, Records, set_certified, set_phase
from tests.support.fork import run_in_child

ALIAS = "records"


@contextmanager
def connected(**configuration: Any) -> Iterator[None]:
    """A further database of the site, for as long as the block lasts."""
    filled = ConnectionHandler({"default": {}, ALIAS: configuration}).settings[ALIAS]
    connections.settings[ALIAS] = filled
    try:
        yield
    finally:
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _postgresql() -> Iterator[dict[str, Any]]:
    psycopg = pytest.importorskip("psycopg")
    if not _listens(5432):
        pytest.skip("no PostgreSQL on the loopback")
    user = os.environ.get("DUALSTORAGE_TEST_POSTGRESQL_USER", "postgres")
    password = os.environ.get("DUALSTORAGE_TEST_POSTGRESQL_PASSWORD", "")
    name = f"dualstorage_{secrets.token_hex(6)}"
    with psycopg.connect(
        host="127.0.0.1", user=user, password=password or None, dbname="postgres", autocommit=True
    ) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            yield {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": name,
                "HOST": "127.0.0.1",
                "USER": user,
                "PASSWORD": password,
            }
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _mariadb() -> Iterator[dict[str, Any]]:
    if importlib.util.find_spec("MySQLdb") is None:
        pytest.importorskip("pymysql").install_as_MySQLdb()
    import MySQLdb

    if not _listens(3306):
        pytest.skip("no MariaDB on the loopback")
    user = os.environ.get("DUALSTORAGE_TEST_MARIADB_USER", "root")
    password = os.environ.get("DUALSTORAGE_TEST_MARIADB_PASSWORD", "")
    name = f"dualstorage_{secrets.token_hex(6)}"
    admin = MySQLdb.connect(host="127.0.0.1", user=user, password=password)
    try:
        admin.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "HOST": "127.0.0.1",
            "USER": user,
            "PASSWORD": password,
            "OPTIONS": {"isolation_level": "repeatable read"},
        }
    finally:
        admin.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
        admin.close()


@pytest.fixture
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), override_settings(DUALSTORAGE_DATABASE=ALIAS):
        yield


@pytest.fixture
def _file(_unblocked: None, tmp_path: Path) -> Iterator[None]:
    """An SQLite file without tables."""
    with connected(ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / "db.sqlite3")):
        yield


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def _database(request: pytest.FixtureRequest, _unblocked: None, tmp_path: Path) -> Iterator[None]:
    """A database with our tables."""
    if request.param == "sqlite":
        with connected(ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / "db.sqlite3")):
            migrate()
            yield
        return
    with (_postgresql if request.param == "postgresql" else _mariadb)() as configuration, connected(**configuration):
        migrate()
        yield


def migrate() -> None:
    with connections[ALIAS].cursor() as cursor:
        if connections[ALIAS].vendor == "sqlite":
            cursor.execute("PRAGMA journal_mode=WAL")  # as sites have it that write from several processes
    call_command("migrate", "dualstorage", database=ALIAS, verbosity=0)


def made(alias: str = "media", pinned: Phase | None = None, volume_id: Callable[[], str] = lambda: "v1") -> Records:
    return Records(alias, pinned, volume_id)


def reports() -> list[tuple[str, int, str, str]]:
    found = ProcessReport.objects.using(ALIAS).order_by("id")
    return [(report.alias, report.pid, report.phase, report.volume_id) for report in found]


every_time = override_settings(DUALSTORAGE_PHASE_TTL=0, DUALSTORAGE_REPORT_INTERVAL=0)


# -- the row -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_database")
def test_the_row_tells_phase_certificate_and_volume() -> None:
    assert made().known() == Known(Phase.DUAL)
    set_phase("media", Phase.S3_PRIMARY)
    set_phase("other", Phase.MIRROR)
    assert made().known() == Known(Phase.S3_PRIMARY)
    assert made("other").known() == Known(Phase.MIRROR)
    set_certified("media", complete=True, phase=Phase.DUAL, volume_id="v1")
    assert made().known() == Known(Phase.S3_PRIMARY, certified=True, volume_id="v1")
    set_certified("media", complete=False, phase=Phase.DUAL, volume_id="v2")
    assert made().known() == Known(Phase.S3_PRIMARY, certified=False, volume_id="v2")
    set_certified("new", complete=True, phase=Phase.DUAL_STRICT, volume_id="v1")
    assert made("new").known() == Known(Phase.DUAL_STRICT, certified=True, volume_id="v1")
    assert records.recorded_phase("new") is Phase.DUAL_STRICT
    assert records.recorded_phase("nobody") is None


@pytest.mark.usefixtures("_database")
def test_a_phase_is_kept_for_a_while_and_may_be_forgotten() -> None:
    set_phase("media", Phase.MIRROR)
    known = made()
    with override_settings(DUALSTORAGE_PHASE_TTL=3600):
        assert known.known().phase is Phase.MIRROR
        set_phase("media", Phase.DUAL)
        assert known.known().phase is Phase.MIRROR
        known.forget()
    with override_settings(DUALSTORAGE_PHASE_TTL=0):
        assert known.known().phase is Phase.DUAL


@pytest.mark.usefixtures("_database")
def test_a_pinned_phase_goes_before_the_row() -> None:
    set_certified("media", complete=True, phase=Phase.S3, volume_id="v1")
    assert made(pinned=Phase.MIRROR).known() == Known(Phase.MIRROR, certified=True, volume_id="v1")
    assert reports()[0][2] == "mirror"


@pytest.mark.usefixtures("_database")
def test_a_certificate_ends_where_the_disk_alone_is_written() -> None:
    set_certified("media", complete=True, phase=Phase.FILESYSTEM, volume_id="v1")
    assert made().known() == Known(Phase.FILESYSTEM, certified=False, volume_id="v1")
    assert StorageState.objects.using(ALIAS).get(alias="media").certified_at is None


@pytest.mark.usefixtures("_database")
def test_a_row_that_cannot_be_understood_is_an_error_that_says_so() -> None:
    StorageState.objects.using(ALIAS).create(alias="media", phase="s4")
    for look in (made().known, lambda: records.recorded_phase("media")):
        with pytest.raises(PhaseUnknownError, match="'media'.*'s4'"):
            look()


# -- no database, or none any more -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_file")
def test_without_tables_it_is_the_default_phase() -> None:
    assert made().known() == Known(Phase.DUAL)
    assert made(pinned=Phase.S3).known() == Known(Phase.S3)


@pytest.mark.usefixtures("_unblocked")
@pytest.mark.parametrize("pinned", [None, Phase.MIRROR])
def test_a_site_without_a_database_is_in_the_default_phase_unless_pinned(
    monkeypatch: pytest.MonkeyPatch, pinned: Phase | None
) -> None:
    dummy = {"ENGINE": "django.db.backends.dummy"}
    monkeypatch.setitem(settings.DATABASES, ALIAS, dummy)
    with connected(**dummy):
        assert made(pinned=pinned).known() == Known(pinned or Phase.DUAL)


@every_time
@pytest.mark.usefixtures("_unblocked")
def test_a_database_that_was_never_reached_is_an_error(tmp_path: Path) -> None:
    with connected(ENGINE="django.db.backends.sqlite3", NAME=str(tmp_path / "nowhere" / "db.sqlite3")):
        with pytest.raises(PhaseUnknownError, match=r"'media'.*guessing could lose files"):
            made().known()
        assert made(pinned=Phase.S3).known() == Known(Phase.S3)


@every_time
@pytest.mark.usefixtures("_file")
def test_a_database_that_goes_away_leaves_the_last_phase(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    migrate()
    set_phase("media", Phase.S3_PRIMARY)
    known = made()
    assert known.known().phase is Phase.S3_PRIMARY
    connections[ALIAS].close()
    (tmp_path / "db.sqlite3").rename(tmp_path / "away.sqlite3")
    (tmp_path / "db.sqlite3").mkdir()
    assert known.known().phase is Phase.S3_PRIMARY
    assert "going on in s3-primary" in caplog.text
    (tmp_path / "db.sqlite3").rmdir()
    (tmp_path / "away.sqlite3").rename(tmp_path / "db.sqlite3")
    set_phase("media", Phase.S3)
    assert known.known().phase is Phase.S3


@every_time
@pytest.mark.usefixtures("_file")
def test_a_table_of_another_shape_is_an_error() -> None:
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"CREATE TABLE {records.STATE_TABLE} (something integer)")
    with pytest.raises(PhaseUnknownError):
        made().known()


def test_a_test_that_may_not_use_the_database_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        made().known()
    assert made(pinned=Phase.MIRROR).known() == Known(Phase.MIRROR)


# -- the caller's own transaction --------------------------------------------------------------------------------------


@every_time
@pytest.mark.usefixtures("_database")
def test_a_long_transaction_of_the_caller_keeps_no_old_phase() -> None:
    set_phase("media", Phase.MIRROR)
    known = made()
    with transaction.atomic(using=ALIAS):
        assert StorageState.objects.using(ALIAS).get().phase == "mirror"
        with records.own_connection() as other, other.cursor() as cursor:
            cursor.execute(f"UPDATE {records.STATE_TABLE} SET phase = 'dual'")
        assert known.known().phase is Phase.DUAL


@every_time
@pytest.mark.usefixtures("_database")
def test_a_broken_transaction_of_the_caller_does_not_matter_and_is_left_alone() -> None:
    set_phase("media", Phase.MIRROR)
    with pytest.raises(DatabaseError), transaction.atomic(using=ALIAS):
        with connections[ALIAS].cursor() as cursor:
            try:
                cursor.execute("SELECT nonsense FROM nowhere")
            except DatabaseError:
                assert made().known().phase is Phase.MIRROR
                raise


@every_time
@pytest.mark.usefixtures("_database")
def test_a_transaction_of_the_caller_that_writes_does_not_matter() -> None:
    """On SQLite it holds the one lock there is: the report has to wait, the phase not."""
    set_phase("media", Phase.MIRROR)
    with transaction.atomic(using=ALIAS):
        StorageState.objects.using(ALIAS).create(alias="uncommitted", phase="s3")
        assert made().known().phase is Phase.MIRROR
        assert made("uncommitted").known().phase is Phase.DUAL


# -- the fleet ---------------------------------------------------------------------------------------------------------


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
    assert records.separate_volumes("media") == {"v1": {socket.gethostname()[:255]}}
    now = timezone.now()
    for host, volume, seen in (("b", "v2", now), ("c", "", now), ("d", "v3", now - timedelta(hours=2))):
        ProcessReport.objects.using(ALIAS).create(
            alias="media", host=host, pid=1, phase="dual", volume_id=volume, last_seen=seen
        )
    assert records.separate_volumes("media") == {"v1": {socket.gethostname()[:255]}, "v2": {"b"}}
    assert records.separate_volumes("other") == {}


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
