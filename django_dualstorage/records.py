"""The one door between the storage and the database: the phase, and who is in which.

``storage.py`` must not import models: a ``FileField(storage=...)`` builds storages while models load. And it must not
read the phase through the request's own connection: a long REPEATABLE READ transaction would keep an old phase, and
a failed query would break the caller's transaction.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import DatabaseError
from django.db.utils import Error as DjangoDatabaseError
from django.utils import timezone

from django_dualstorage.conf import setting
from django_dualstorage.core.differences import Difference, Found
from django_dualstorage.core.phases import DEFAULT_PHASE, Phase, parse_phase
from django_dualstorage.exceptions import ConfigurationError, PhaseUnknownError

if TYPE_CHECKING:
    from django_dualstorage.models import DiscrepancyQuerySet, ProcessReport, Run

logger = logging.getLogger("django_dualstorage.phase")

STATE_TABLE = "dualstorage_storagestate"
REPORT_TABLE = "dualstorage_processreport"
_FORGET_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Known:
    """What the database says about one storage."""

    phase: Phase
    #: A backfill has found every file on both sides, and S3 is where it was then, so S3 URLs may be given out.
    certified: bool = False
    #: The volume that commands have worked with, empty if none has.
    volume_id: str = ""
    #: Endpoint, bucket and prefix of the last complete backfill, empty if there was none.
    certified_place: str = ""


class Records:
    """The phase of one storage in this process: read at most every few seconds."""

    def __init__(
        self, alias: str, pinned: Phase | None, volume_id: Callable[[], str] | None, place: Callable[[], str]
    ) -> None:
        """``volume_id()`` is asked for when the process reports to the fleet, in phases that use the disk; None for a
        storage that does not report. ``place()`` tells where the S3 side is, empty if it cannot be told.
        """
        self._alias = alias
        self._pinned = pinned
        self._volume_id = volume_id
        self._place = place
        self._lock, self._lock_pid = threading.Lock(), os.getpid()
        self._known: Known | None = None
        self._read_at = 0.0
        self._reported: tuple[Phase, int] | None = None
        self._reported_at = 0.0

    def known(self) -> Known:
        """The phase and what belongs to it.

        Tables that are not there yet: the default phase (a check warns). A database that cannot be reached: what was
        known last. Raises PhaseUnknownError if nothing ever was, unless the phase is pinned.
        """
        known = self._known
        if known is not None and time.monotonic() - self._read_at < setting("PHASE_TTL"):
            return known
        if self._lock_pid != os.getpid():
            # Another thread of the parent may have held it at the fork, and nobody would ever release it here.
            self._lock, self._lock_pid = threading.Lock(), os.getpid()
        # Whoever finds the answer old asks anew; the others go by the old one meanwhile.
        if known is not None and not self._lock.acquire(blocking=False):
            return known
        if known is None:
            self._lock.acquire()
        try:
            if self._known is None or time.monotonic() - self._read_at >= setting("PHASE_TTL"):
                self._known = _outside_of_the_event_loop(self._refreshed)
                self._read_at = time.monotonic()
            return self._known
        finally:
            self._lock.release()

    def forget(self) -> None:
        """Ask the database again at the next call."""
        self._read_at = 0.0

    def withdraw(self) -> None:
        """Take back what this process has reported: it does not work with the files after all."""
        withdraw_reports(self._alias)
        self._reported = None

    def _refreshed(self) -> Known:
        try:
            with own_connection() as connection:
                found = _read_state(connection, self._alias)
                if self._pinned is not None:
                    found = replace(found, phase=self._pinned)
                if found.certified:
                    found = self._certified_still(connection, found)
                self._report(connection, found.phase)
                return found
        except Exception as error:  # every driver has errors of its own, and a test runner may forbid the database
            if self._pinned is not None:
                logger.debug("The phase is pinned; the database was not available: %s", error)
                return Known(self._pinned)
            if not isinstance(error, (DjangoDatabaseError, ImproperlyConfigured, OSError)):
                raise
            if self._known is not None:
                logger.warning(
                    "The database cannot be asked for the phase (%s); going on in %s", error, self._known.phase
                )
                return self._known
            raise PhaseUnknownError(
                f"The database cannot be asked for the phase of storage {self._alias!r} ({error}), and guessing could "
                "lose files. Mend the database, or pin the phase the site is in with DUALSTORAGE_PHASE."
            ) from error

    def _certified_still(self, connection: BaseDatabaseWrapper, found: Known) -> Known:
        """The note "complete" ends for everybody where a process writes elsewhere, or to the disk alone: even if the
        site comes back, what was saved meanwhile is not there.
        """
        uncertified = replace(found, certified=False)
        if self._volume_id is None:
            return uncertified  # a storage that goes by the phase of another one, whose note is not about it
        place = "" if found.phase is Phase.FILESYSTEM else self._place()
        if place == found.certified_place != "":
            return found
        if place or found.phase is Phase.FILESYSTEM:
            _uncertify(connection, self._alias)
        if place:
            logger.warning(
                "The S3 side of storage %r is at %s now, and the last complete backfill was of %s. url() gives the "
                "disk's addresses until manage.py dualstorage_backfill has found every file on both sides",
                self._alias,
                place,
                found.certified_place or "a place that an older release did not write down",
            )
        return uncertified

    def _report(self, connection: BaseDatabaseWrapper, phase: Phase) -> None:
        """Tell the fleet table who we are. A failure costs nothing but a late flip."""
        due = time.monotonic() - self._reported_at >= setting("REPORT_INTERVAL")
        if self._reported == (phase, os.getpid()) and not due:
            return
        if self._volume_id is None:
            return
        try:
            volume = self._volume_id() if phase is not Phase.S3 else ""
            _write_report(connection, self._alias, phase, volume)
        except (DatabaseError, ImproperlyConfigured, OSError) as error:  # a site without a database has no fleet table
            logger.debug("This process could not report its phase: %s", error)
        else:
            self._reported = (phase, os.getpid())
            _reported.add((self._alias, os.getpid(), str(connection.settings_dict["NAME"])))
        self._reported_at = time.monotonic()


#: What this process has reported, and where: alias, process id, name of the database. A child inherits its parent's.
_reported: set[tuple[str, int, str]] = set()


def withdraw_reports(only: str | None = None) -> None:
    """Remove the lines of this process, or those about one storage, from the fleet table. A failure leaves them."""
    mine = {entry for entry in _reported if entry[1] == os.getpid() and only in (None, entry[0])}
    _reported.difference_update(mine)
    try:
        # Not from another database, which a test runner may have put in the place of that one.
        if not any(database == str(connections[setting("DATABASE")].settings_dict["NAME"]) for *_, database in mine):
            return
        with own_connection() as connection, connection.cursor() as cursor:
            for alias, pid, _ in mine:
                cursor.execute(
                    f"DELETE FROM {connection.ops.quote_name(REPORT_TABLE)}"  # noqa: S608  a constant
                    " WHERE alias = %s AND host = %s AND pid = %s",
                    [alias, socket.gethostname()[:255], pid],
                )
    except Exception as error:  # noqa: BLE001  at the end of a process the database may be gone in any way
        logger.debug("This process could not take its report back: %s", error)


# A command that has ended must not count as a process of the site. Killed ones do, for an hour.
atexit.register(withdraw_reports)


def _outside_of_the_event_loop(ask: Callable[[], Known]) -> Known:
    """Django refuses the database to a thread that runs an event loop, but ``url()`` is called there: the question,
    of about a millisecond, is asked by another thread then.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return ask()
    with ThreadPoolExecutor(1, thread_name_prefix="dualstorage-phase") as pool:
        return pool.submit(ask).result()


@contextmanager
def own_connection() -> Iterator[BaseDatabaseWrapper]:
    """A short autocommit connection of our own, closed at the end.

    An in-memory SQLite database exists in its one connection only, so there that one is used.
    """
    shared = connections[setting("DATABASE")]
    if shared.vendor == "sqlite" and shared.is_in_memory_db():  # type: ignore[attr-defined]  # of the SQLite wrapper
        opened_here = shared.connection is None
        try:
            yield shared
        finally:
            # Django's close() spares a database in memory, but a thread's own connection to it must not outlive it.
            if opened_here and shared.connection is not None:
                shared.connection.close()
                shared.connection = None
        return
    connection = shared.copy()
    options = dict(connection.settings_dict["OPTIONS"])
    # A pool is known by the alias: it would hand us the connections that the requests are waiting for.
    options.pop("pool", None)
    if connection.vendor == "sqlite":
        # The caller's own transaction may hold the write lock: waiting for it would be waiting for ourselves.
        options["timeout"] = 0.1
    connection.settings_dict["OPTIONS"] = options
    try:
        yield connection
    finally:
        connection.close()


def _read_state(connection: BaseDatabaseWrapper, alias: str) -> Known:
    try:
        table = connection.ops.quote_name(STATE_TABLE)
        with connection.cursor() as cursor:
            # Not by name: a column that migrate has still to add must not keep the phase from being known.
            cursor.execute(f"SELECT * FROM {table} WHERE alias = %s", [alias])  # noqa: S608  a constant
            values = cursor.fetchone()
            row = values and dict(zip((column[0] for column in cursor.description), values, strict=True))
    except DatabaseError:
        if STATE_TABLE in connection.introspection.table_names():
            raise
        row = None
    except ImproperlyConfigured:
        if settings.DATABASES.get(setting("DATABASE"), {}).get("ENGINE", "").rpartition(".")[2] != "dummy":
            raise
        row = None  # a site without a database
    if row is None:
        return Known(DEFAULT_PHASE)
    try:
        return Known(
            parse_phase(row["phase"]), row["certified_at"] is not None, row["volume_id"], row.get("certified_place", "")
        )
    except ConfigurationError as error:
        raise PhaseUnknownError(
            f"The row of {alias!r} in {STATE_TABLE} cannot be understood: {error} Set it to the phase the site is in."
        ) from error


def _uncertify(connection: BaseDatabaseWrapper, alias: str) -> None:
    table = connection.ops.quote_name(STATE_TABLE)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET certified_at = NULL WHERE alias = %s",  # noqa: S608  a constant
            [alias],
        )


def _write_report(connection: BaseDatabaseWrapper, alias: str, phase: Phase, volume_id: str) -> None:
    table = connection.ops.quote_name(REPORT_TABLE)
    now = _adapted(connection, timezone.now())
    who: list[Any] = [alias, socket.gethostname()[:255], os.getpid()]
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET phase = %s, volume_id = %s, last_seen = %s"  # noqa: S608  a constant
            " WHERE alias = %s AND host = %s AND pid = %s",
            [phase.value, volume_id, now, *who],
        )
        if cursor.rowcount == 0:
            cursor.execute(
                f"INSERT INTO {table} (alias, host, pid, phase, volume_id, last_seen)"  # noqa: S608  a constant
                " VALUES (%s, %s, %s, %s, %s, %s)",
                [*who, phase.value, volume_id, now],
            )
            cursor.execute(
                f"DELETE FROM {table} WHERE last_seen < %s",  # noqa: S608  a constant
                [_adapted(connection, timezone.now() - _FORGET_AFTER)],
            )


def _adapted(connection: BaseDatabaseWrapper, when: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(when)


# -- for commands ------------------------------------------------------------------------------------------------------


def set_phase(alias: str, phase: Phase) -> None:
    """Write the phase row. What makes a flip safe (one step, a drained journal, the whole fleet) is the caller's.

    Logs a warning if the phase is pinned to another one, which wins. Raises ConfigurationError for an alias that no
    storage has, and for what is no phase.
    """
    from django_dualstorage.models import StorageState

    if not isinstance(phase, Phase):
        raise ConfigurationError(f"{phase!r} is no Phase. Write Phase.DUAL or Phase('dual'), say.")
    if alias not in (known := _known_aliases()):
        raise ConfigurationError(
            f"No storage has the alias {alias!r}; there are {', '.join(sorted(known))}. One that is built elsewhere "
            "than in STORAGES is known once it has been used."
        )
    pin = settings.STORAGES.get(alias, {}).get("OPTIONS", {}).get("phase") or setting("PHASE")
    if pin not in (None, phase):
        logger.warning(
            "The row of storage %r says %s from now on, but the phase is pinned to %s (phase in OPTIONS, or "
            "DUALSTORAGE_PHASE), which wins: nothing changes until the pin is taken away",
            alias,
            phase,
            pin,
        )
    manager = StorageState.objects.using(setting("DATABASE"))
    changes = {"phase": phase.value, "phase_changed_at": timezone.now()}
    # One statement: on SQLite a transaction that reads before it writes fails at once if a process reports meanwhile.
    if not manager.filter(alias=alias).update(**changes):
        manager.create(alias=alias, **changes)


def _known_aliases() -> set[str]:
    from django_dualstorage.models import ProcessReport, StorageState

    known = {"default", *settings.STORAGES}
    known.update(str(named) for entry in settings.STORAGES.values() if (named := entry.get("OPTIONS", {}).get("alias")))
    for model in (StorageState, ProcessReport):
        known.update(model._default_manager.using(setting("DATABASE")).values_list("alias", flat=True).distinct())
    return known


def demand_tables() -> None:
    """Raises ConfigurationError if what a command finds out could not be written down at its end."""
    from django_dualstorage.models import StorageState

    try:
        StorageState.objects.using(setting("DATABASE")).exists()
    except DatabaseError as error:
        raise ConfigurationError(f"The table {STATE_TABLE} cannot be used ({error}). Run manage.py migrate.") from error


def set_certified(alias: str, *, complete: bool, phase: Phase, volume_id: str, place: str) -> None:
    """Note whether every file is on both sides, on which volume the commands work and where the S3 side is.

    A row that this creates keeps the site in the phase it is in.
    """
    from django_dualstorage.models import StorageState

    shared = connections[setting("DATABASE")]
    if not shared.in_atomic_block:
        shared.close_if_unusable_or_obsolete()  # it has lain idle for hours, and the server may have been restarted
    manager = StorageState.objects.using(setting("DATABASE"))
    state, _ = manager.get_or_create(alias=alias, defaults={"phase": phase.value})
    state.certified_at = timezone.now() if complete else None
    if complete:
        state.certified_place = place
    state.volume_id = volume_id
    state.save(using=setting("DATABASE"), update_fields=("certified_at", "certified_place", "volume_id"))


def recorded_phase(alias: str) -> Phase | None:
    """The phase in the database whatever is pinned, None if there is no row yet. Raises PhaseUnknownError."""
    from django_dualstorage.models import StorageState

    found = StorageState.objects.using(setting("DATABASE")).filter(alias=alias).values_list("phase", flat=True).first()
    try:
        return None if found is None else parse_phase(found)
    except ConfigurationError as error:
        raise PhaseUnknownError(f"The row of {alias!r} in {STATE_TABLE} cannot be understood: {error}") from error


def certified_place(alias: str) -> str:
    """Where the S3 side was at the last complete backfill; empty if there was none."""
    from django_dualstorage.models import StorageState

    states = StorageState.objects.using(setting("DATABASE")).filter(alias=alias)
    return states.values_list("certified_place", flat=True).first() or ""


def separate_volumes(alias: str) -> dict[str, list[ProcessReport]]:
    """The processes seen within the last hour, by volume id. More than one entry is a split site."""
    from django_dualstorage.models import ProcessReport

    seen: dict[str, list[ProcessReport]] = {}
    reports = ProcessReport.objects.using(setting("DATABASE")).filter(
        alias=alias, last_seen__gte=timezone.now() - timedelta(hours=1)
    )
    for report in reports.exclude(volume_id="").order_by("host", "pid"):
        seen.setdefault(report.volume_id, []).append(report)
    return seen


def forget_processes(alias: str, volume_id: str) -> int:
    """Remove the reports of all processes on that volume, and say how many; those that live report again."""
    from django_dualstorage.models import ProcessReport

    return ProcessReport.objects.using(setting("DATABASE")).filter(alias=alias, volume_id=volume_id).delete()[0]


def forget_volume(alias: str) -> int:
    """Let commands work with whatever volume is at MEDIA_ROOT, from the next one on, and say for how many storages.

    What a site that has moved its files to another disk runs once. ``certified_at`` stays.
    """
    from django_dualstorage.models import StorageState

    return StorageState.objects.using(setting("DATABASE")).filter(alias=alias).update(volume_id="")


# -- what a command does, while it does it -----------------------------------------------------------------------------

#: Seconds between two signs of life.
BEAT_EVERY = 10.0
#: How many discrepancies of a kind a run writes down; all of them are counted.
NOTED_PER_KIND = 10_000


class RunNote:
    """The row of a run that goes on. A database that fails costs the note, never the run."""

    def __init__(self, run: Run | None, why_not: str = "") -> None:
        self._run = run
        #: Why nothing is written down; empty if it is.
        self.why_not = why_not
        self._beaten = time.monotonic()

    @property
    def id(self) -> int | None:
        """The number of the run, None if it is not written down."""
        return None if self._run is None else self._run.pk

    def beat(self, counts: Mapping[Any, int], size: int) -> None:
        """Say how far it is; call it as often as you like. ``size`` in bytes."""
        if time.monotonic() - self._beaten < BEAT_EVERY:
            return
        self._beaten = time.monotonic()
        self._write(lambda run: run.beat(_plain(counts), size))

    def end(self, report: dict[str, Any], counts: Mapping[Any, int], size: int, *, interrupted: bool = False) -> None:
        """Say how it ended. ``report`` is plain data."""
        self._write(lambda run: run.end(report, _plain(counts), size, interrupted=interrupted))

    def fail(self, error: BaseException) -> None:
        """Say that an error ended it, unless it has ended."""
        self._write(lambda run: run.fail(error))

    def found(self, found: Iterable[Found]) -> None:
        """Write down what was found; the caller leaves out what is more than :data:`NOTED_PER_KIND`."""
        now = timezone.now()
        batches = iter(found)
        while self._run is not None and (batch := list(islice(batches, 1000))):
            self._write(lambda run, batch=batch: _discrepancies().note(run, batch, now))  # type: ignore[misc]

    def not_found_again(
        self,
        kinds: Iterable[Difference],
        prefix: str,
        unjudged: Callable[[list[str]], set[str]] = lambda names: set(),
    ) -> None:
        """Close what earlier runs had found of these kinds below ``prefix`` and this one, which looked, did not.
        ``unjudged`` tells which of some names it could not look at; these stay open.
        """
        self._write(lambda run: _discrepancies().not_found_again(run, kinds, prefix, unjudged))

    def open_names(self, kind: Difference, prefix: str, limit: int) -> list[str]:
        """Names below ``prefix`` that earlier runs have left a discrepancy of a kind open for, the oldest ones."""
        names: list[str] = []

        def read(run: Run) -> None:
            rows = (
                _discrepancies().of(run.alias).open().filter(kind=kind.value, name__startswith=prefix).exclude(name="")
            )
            found = rows.order_by("id").values_list("name", flat=True)[:limit]
            # The database's idea of a beginning may not tell upper from lower case.
            names.extend(name for name in found if name.startswith(prefix))

        self._write(read)
        return names

    def fixed(self, found: Iterable[Found]) -> None:
        """Close what was mended."""
        self._write(lambda run: _discrepancies().fixed(run, found))

    def _write(self, what: Callable[[Run], object]) -> None:
        if self._run is None:
            return
        try:
            what(self._run)
        except DjangoDatabaseError as error:
            logger.warning("This run is not written down any further, since the database gave an error: %s", error)
            self._run, self.why_not = None, str(error)


def _discrepancies() -> DiscrepancyQuerySet:
    from django_dualstorage.models import Discrepancy

    return Discrepancy.objects.using(setting("DATABASE"))


@contextmanager
def noted_run(alias: str | None, kind: str, parameters: Mapping[str, Any]) -> Iterator[RunNote]:
    """Write down that a command runs on the storage ``alias``, as long as the block lasts.

    Three lines in an operation: this one, ``note.beat(counts, bytes)`` at each result, ``note.end(...)`` at the end;
    an error that leaves the block is noted by itself. Without tables, or a database, nothing is written and the run
    goes on: ``note.why_not`` says so. So it is for a storage that no entry in STORAGES stands for (None).
    """
    if alias is None:
        yield RunNote(None, "STORAGES has no entry for this storage")
        return
    from django_dualstorage.models import Run

    now = timezone.now()
    run: Run | None = None
    why_not = ""
    try:
        run = Run.objects.using(setting("DATABASE")).create(
            alias=alias,
            kind=kind,
            parameters=dict(parameters),
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            started=now,
            heartbeat=now,
        )
    except (DjangoDatabaseError, ImproperlyConfigured) as error:
        why_not = f"{str(error).strip()}; if the table is missing, run manage.py migrate"
        logger.warning("This run is not written down (%s)", why_not)
    note = RunNote(run, why_not)
    try:
        yield note
    except BaseException as error:
        note.fail(error)
        raise


def _plain(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items() if count}
