"""Runs and discrepancies: what is written down, on the databases that can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings
from django.utils import timezone

from django_dualstorage import records
from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.core.report import Outcome
from django_dualstorage.models import Discrepancy, Run
from django_dualstorage.records import noted_run
from django_dualstorage.storage import DualWriteStorage
from tests.support.backfills import run as backfill
from tests.support.backfills import write
from tests.support.databases import ALIAS, DATABASES, connected, migrate, sqlite

#: As long as a name on the disk can be, and more than an index takes.
LONG = "\u00e9" * 1500


@pytest.fixture
def _unblocked(django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), override_settings(DUALSTORAGE_DATABASE=ALIAS):
        yield


@pytest.fixture(params=DATABASES)
def _database(request: pytest.FixtureRequest, _unblocked: None, tmp_path: Path) -> Iterator[None]:
    with DATABASES[request.param](tmp_path) as configuration, connected(**configuration):
        migrate()
        yield


def missing(*names: str) -> list[Found]:
    return [Found(Difference.MISSING_ON_S3, name, Side.S3, "only the disk has it") for name in names]


def kept() -> dict[str, str]:
    return dict(Discrepancy.objects.using(ALIAS).values_list("name", "resolution"))


def runs() -> Any:
    return Run.objects.using(ALIAS).of("media")


@pytest.mark.usefixtures("_database")
def test_run_from_its_beginning_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BEAT_EVERY", 0.0)
    with noted_run("media", "backfill", {"prefix": "a/"}) as note:
        (run,) = runs()
        assert (run.state, run.parameters, run.finished) == ("running", {"prefix": "a/"}, None)
        note.beat({Outcome.UPLOADED: 3, Outcome.FAILED: 0}, 5_000_000_000)
        (run,) = runs().alive()
        assert (run.counts, run.bytes) == ({"uploaded": 3}, 5_000_000_000)
        note.end({"files": 4}, {Outcome.UPLOADED: 4}, 6_000_000_000)
    (run,) = runs()
    assert (run.state, run.report, run.counts, run.bytes) == ("finished", {"files": 4}, {"uploaded": 4}, 6_000_000_000)
    assert run.finished >= run.started
    assert str(run) == "backfill of media: finished"
    assert not runs().alive().exists()


@pytest.mark.usefixtures("_database")
def test_run_that_ends_by_an_error_or_by_ctrl_c() -> None:
    for error, state in ((OSError("the disk is full"), "failed"), (KeyboardInterrupt(), "interrupted")):
        with pytest.raises(type(error)), noted_run("media", "verify", {}):
            raise error
        assert runs().first().state == state
    with noted_run("media", "verify", {}) as note:
        note.end({}, {}, 0, interrupted=True)
    assert runs().first().state == "interrupted"


@pytest.mark.usefixtures("_database")
def test_error_after_the_end_does_not_take_it_back() -> None:
    def run_and_print() -> None:
        with noted_run("media", "verify", {}) as note:
            note.end({}, {}, 0)
            raise OSError("printing")

    with pytest.raises(OSError, match="printing"):
        run_and_print()
    assert runs().first().state == "finished"


@pytest.mark.usefixtures("_database")
def test_run_that_is_silent_is_lost() -> None:
    with noted_run("media", "verify", {}):
        runs().update(heartbeat=timezone.now() - timedelta(hours=1))
        assert runs().lost().exists()
        assert not runs().alive().exists()


@pytest.mark.usefixtures("_database")
def test_discrepancy_from_its_first_sight_until_it_is_gone() -> None:
    with noted_run("media", "verify", {}) as note:
        note.found(missing("a", "b/c", LONG, "b/C"))
    first = Discrepancy.objects.using(ALIAS).get(name="a").first_seen
    with noted_run("media", "verify", {}) as note:
        note.found(missing("a"))
        note.not_found_again([Difference.DIFFERS], "")
        assert set(kept().values()) == {""}
        note.not_found_again([Difference.MISSING_ON_S3], "b/c")
        assert kept() == {"a": "", "b/c": "gone", LONG: "", "b/C": ""}
        note.not_found_again([Difference.MISSING_ON_S3], "")
    assert kept() == {"a": "", "b/c": "gone", LONG: "gone", "b/C": "gone"}
    again = Discrepancy.objects.using(ALIAS).get(name="a")
    assert again.first_seen == first < again.last_seen
    with noted_run("media", "verify", {}) as note:
        note.found(missing(LONG, "a"))
        note.fixed(missing("a"))
    assert kept() == {"a": "fixed", "b/c": "gone", LONG: "", "b/C": "gone"}
    (one,) = Discrepancy.objects.using(ALIAS).of("media").open()
    one.resolve(Discrepancy.Resolution.IGNORED)
    assert kept()[LONG] == "ignored"
    assert str(one) == f"{LONG}: missing-on-s3"


@pytest.mark.usefixtures("_database")
def test_pages_along_the_key() -> None:
    with noted_run("media", "verify", {}) as note:
        note.found(missing(*map(str, range(2500))))
    after, seen = 0, []
    while page := list(Discrepancy.objects.using(ALIAS).of("media").page(after, 1000)):
        after = page[-1].id
        seen.append(len(page))
    assert seen == [1000, 1000, 500]


@pytest.mark.usefixtures("_database")
def test_the_same_name_in_two_storages_and_of_two_kinds() -> None:
    for alias in ("media", "other"):
        with noted_run(alias, "verify", {}) as note:
            note.found([*missing("a"), Found(Difference.EMPTY, "a", Side.DISK)])
    assert Discrepancy.objects.using(ALIAS).filter(name="a").count() == 4


@pytest.mark.usefixtures("_unblocked")
def test_database_that_fails_costs_the_note_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sqlite(tmp_path) as configuration, connected(**configuration):
        with noted_run("media", "verify", {}) as note:
            assert "manage.py migrate" in note.why_not
            assert note.id is None
            note.found(missing("a"))
            note.end({}, {}, 0)
        migrate()
        with noted_run("media", "verify", {}) as note:
            with connections[ALIAS].cursor() as cursor:
                cursor.execute("DROP TABLE dualstorage_discrepancy")
            note.found(missing("a"))
            assert "dualstorage_discrepancy" in note.why_not
            note.end({}, {}, 0)
    assert "not written down any further" in caplog.text


@pytest.mark.django_db
def test_backfill_keeps_a_run_and_a_dry_one_does_not(default_storage: DualWriteStorage) -> None:
    write(default_storage, "a.txt")
    backfill(default_storage, dry_run=True)
    assert not Run.objects.exists()
    backfill(default_storage)
    run = Run.objects.get()
    assert (run.alias, run.kind, run.state) == ("default", "backfill", "finished")
    assert (run.counts, run.bytes, run.report["files"]) == ({"uploaded": 1}, 7, 1)
    assert run.parameters["whole"]


def test_storage_without_an_entry_keeps_none() -> None:
    with noted_run(None, "verify", {}) as note:
        note.found(missing("a"))
        note.end({}, {}, 0)
    assert (note.id, note.why_not) == (None, "STORAGES has no entry for this storage")
