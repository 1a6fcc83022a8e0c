"""The phase as a process knows it, on the databases that can be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.db.utils import DatabaseError
from django.test import override_settings

from django_dualstorage import records
from django_dualstorage.core.phases import Phase
from django_dualstorage.exceptions import ConfigurationError, PhaseUnknownError
from django_dualstorage.models import ProcessReport, StorageState
from django_dualstorage.records import Known, Records, set_certified, set_phase
from tests.support.databases import ALIAS, DATABASES, connected, migrate, sqlite


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


every_time = override_settings(DUALSTORAGE_PHASE_TTL=0, DUALSTORAGE_REPORT_INTERVAL=0)


# -- the row -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_database")
def test_the_row_tells_phase_certificate_and_volume() -> None:
    assert made().known() == Known(Phase.DUAL)
    set_phase("media", Phase.S3_PRIMARY)
    set_phase("other", Phase.MIRROR)
    assert made().known() == Known(Phase.S3_PRIMARY)
    assert made("other").known() == Known(Phase.MIRROR)
    set_certified("media", complete=True, phase=Phase.DUAL, volume_id="v1", place="here")
    assert made().known() == Known(Phase.S3_PRIMARY, certified=True, volume_id="v1", certified_place="here")
    set_certified("media", complete=False, phase=Phase.DUAL, volume_id="v2", place="here")
    assert made().known() == Known(Phase.S3_PRIMARY, certified=False, volume_id="v2", certified_place="here")
    set_certified("new", complete=True, phase=Phase.DUAL_STRICT, volume_id="v1", place="here")
    assert made("new").known() == Known(Phase.DUAL_STRICT, certified=True, volume_id="v1", certified_place="here")
    assert records.recorded_phase("new") is Phase.DUAL_STRICT
    assert records.recorded_phase("nobody") is None


@pytest.mark.usefixtures("_file")
@pytest.mark.parametrize(
    ("alias", "phase", "told"),
    [
        ("medai", Phase.DUAL, r"No storage has the alias 'medai'; there are default, elsewhere, media, other"),
        ("media", "dual", r"'dual' is no Phase. Write Phase.DUAL"),
    ],
)
def test_a_slip_in_setting_the_phase_is_told(alias: str, phase: Any, told: str) -> None:
    migrate()
    Records("elsewhere", None, str, str).known()
    with pytest.raises(ConfigurationError, match=told):
        set_phase(alias, phase)
    assert not StorageState.objects.using(ALIAS).exists()
    set_phase("elsewhere", Phase.DUAL)


@pytest.mark.usefixtures("_file")
def test_who_sets_a_pinned_phase_is_told_that_the_pin_wins(caplog: pytest.LogCaptureFixture) -> None:
    migrate()
    with override_settings(DUALSTORAGE_PHASE="mirror"):
        set_phase("media", Phase.MIRROR)
        assert not caplog.records
        set_phase("media", Phase.DUAL)
    assert "pinned to mirror" in caplog.text
    assert records.recorded_phase("media") is Phase.DUAL


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
    set_certified("media", complete=True, phase=Phase.S3, volume_id="v1", place="here")
    assert made(pinned=Phase.MIRROR).known() == Known(
        Phase.MIRROR, certified=True, volume_id="v1", certified_place="here"
    )
    assert reports()[0][2] == "mirror"


@pytest.mark.usefixtures("_database")
def test_a_certificate_ends_where_the_disk_alone_is_written() -> None:
    set_certified("media", complete=True, phase=Phase.FILESYSTEM, volume_id="v1", place="here")
    assert made().known() == Known(Phase.FILESYSTEM, certified=False, volume_id="v1", certified_place="here")
    assert StorageState.objects.using(ALIAS).get(alias="media").certified_at is None


@pytest.mark.usefixtures("_database")
def test_a_certificate_ends_for_everybody_where_s3_is_at_another_place(caplog: pytest.LogCaptureFixture) -> None:
    def certified(place: str, **also: Any) -> bool:
        return (
            Records("media", also.get("pinned"), also.get("volume_id", lambda: "v1"), lambda: place).known().certified
        )

    set_certified("media", complete=True, phase=Phase.DUAL, volume_id="v1", place="there")
    assert not certified("")  # an S3 side that cannot be configured writes nowhere
    assert not certified("here", volume_id=None)  # nor does a storage without an alias speak for this one
    assert not certified("there", volume_id=None, pinned=Phase.FILESYSTEM)
    assert certified("there")
    assert not certified("here")
    assert "there" in caplog.text
    assert "dualstorage_backfill" in caplog.text
    # What was saved at the other place meanwhile is not at this one.
    assert not certified("there")


@pytest.mark.usefixtures("_database")
def test_a_certificate_that_does_not_say_of_which_place_does_not_count() -> None:
    set_certified("media", complete=True, phase=Phase.DUAL, volume_id="v1", place="")
    assert not made().known().certified


@pytest.mark.usefixtures("_file")
def test_a_table_that_lacks_the_newest_column_tells_the_phase(tmp_path: Path) -> None:
    migrate()
    set_phase("media", Phase.MIRROR)
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {records.STATE_TABLE} DROP COLUMN certified_place")
        cursor.execute(f"UPDATE {records.STATE_TABLE} SET certified_at = '2026-01-01'")
    assert made().known() == Known(Phase.MIRROR)


@pytest.mark.usefixtures("_database")
def test_a_row_that_cannot_be_understood_is_an_error_that_says_so() -> None:
    StorageState.objects.using(ALIAS).create(alias="media", phase="s4")
    for look in (made().known, lambda: records.recorded_phase("media")):
        with pytest.raises(PhaseUnknownError, match=r"'media'.*'s4'"):
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
    with transaction.atomic(using=ALIAS):
        with pytest.raises(DatabaseError):
            fail_in_the_middle()
        assert StorageState.objects.using(ALIAS).get().phase == "mirror"


def fail_in_the_middle() -> None:
    with transaction.atomic(using=ALIAS), connections[ALIAS].cursor() as cursor:
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
