"""What the tables say. Asked only with ``check --database``, as Django's own checks of databases are."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from django_dualstorage import records
from django_dualstorage.checks.backends import Dual
from django_dualstorage.checks.messages import attempted, message, told
from django_dualstorage.conf import setting
from django_dualstorage.core.phases import DEFAULT_PHASE, Phase, neighbours, policy_of
from django_dualstorage.exceptions import PhaseUnknownError

if TYPE_CHECKING:
    from django_dualstorage.models import ProcessReport

_APP = "dualstorage"


def missing_database() -> Iterator[CheckMessage]:
    """DUALSTORAGE_DATABASE names no database. Asks none."""
    if setting("DATABASE") not in connections:
        yield message(
            "dualstorage.E004",
            "DUALSTORAGE_DATABASE",
            f"There is no database {setting('DATABASE')!r} in DATABASES, so the phase cannot be read.",
            f"Set it to one of {', '.join(map(repr, connections))}.",
        )


def recorded_state(duals: list[Dual], databases: Collection[str]) -> Iterator[CheckMessage]:
    """Whether the tables are there, and what they say of each storage."""
    alias = setting("DATABASE")
    if not duals or alias not in databases:
        return
    try:
        if _lacks_migrations(alias):
            yield message(
                "dualstorage.W023",
                _APP,
                f"The tables of django_dualstorage are not all in the database {alias!r}. Until they are, storages "
                f"whose phase is not pinned are in phase {DEFAULT_PHASE}.",
                f"Run manage.py migrate {_APP}" + ("." if alias == "default" else f" --database {alias}."),
            )
            return
        for dual in duals:
            yield from _state_of(dual)
    except ImproperlyConfigured:
        return  # a site without a database, where the phase is the default or pinned
    except (DatabaseError, PhaseUnknownError) as error:
        yield message(
            "dualstorage.E024",
            _APP,
            f"The database {alias!r} does not tell the phase: {told(error, {})}",
            "Mend it. A process that has never known the phase refuses to work, because a guess could lose files.",
        )


def _lacks_migrations(alias: str) -> bool:
    connection = connections[alias]
    loader = MigrationLoader(connection)
    if any(node not in loader.applied_migrations for node in loader.graph.leaf_nodes(_APP)):
        return True
    # The site may have switched our migrations off and made the tables in another way.
    return not {records.STATE_TABLE, records.REPORT_TABLE} <= set(connection.introspection.table_names())


def _state_of(dual: Dual) -> Iterator[CheckMessage]:
    recorded = records.recorded_phase(dual.alias)
    pinned = dual.storage.options.phase
    if pinned is not None and recorded is not None and pinned is not recorded:
        yield message(
            "dualstorage.W026",
            dual.where,
            f"The phase is pinned to {pinned}, but the database says that the site is in {recorded}.",
            "If the pin is a mistake (phase in OPTIONS, DUALSTORAGE_PHASE or USE_S3=0), take it out. "
            + _way(recorded, pinned),
        )
    yield from _place(dual)
    yield from _volumes(dual, pinned or recorded or DEFAULT_PHASE)


def _way(recorded: Phase, pinned: Phase) -> str:
    if pinned in neighbours(recorded):
        return "If the site goes by the pin on purpose, this is one step: docs/phases.rst has what must hold before it."
    return "If the site is to go there, take one step at a time (docs/phases.rst): a leap hides files of one side."


def _place(dual: Dual) -> Iterator[CheckMessage]:
    place = attempted(lambda: dual.storage.place)
    backfilled = records.certified_place(dual.alias)
    if isinstance(place, str) and backfilled not in ("", place):  # otherwise the checks of S3 tell what is wrong
        yield message(
            "dualstorage.W030",
            dual.where,
            f"The last complete backfill was of {backfilled}, and the S3 side is at {place} now.",
            "If it has moved, run manage.py dualstorage_backfill; until that is complete url() gives the disk's "
            "addresses. Otherwise correct the bucket, the location or the endpoint.",
        )


def _volumes(dual: Dual, phase: Phase) -> Iterator[CheckMessage]:
    volumes = records.separate_volumes(dual.alias)
    if len(volumes) > 1 and policy_of(phase).local_truth:
        shown = "; ".join(
            f"{volume}: {', '.join(map(_process, reports))}" for volume, reports in sorted(volumes.items())
        )
        yield message(
            "dualstorage.E025",
            dual.where,
            f"In phase {phase} the disk is the truth, but the processes of the last hour have {len(volumes)} separate "
            f"disks ({shown}).",
            "Mount one volume at MEDIA_ROOT of all of them. Processes that were killed count for an hour; to forget "
            'those of a volume, put its id into: manage.py shell -c "from django_dualstorage.records import '
            f"forget_processes; forget_processes('{dual.alias}', 'VOLUME')\"",
        )


def _process(report: ProcessReport) -> str:
    minutes = (timezone.now() - report.last_seen).total_seconds() / 60
    return f"{report.host} pid {report.pid} {minutes:.0f} min ago"
