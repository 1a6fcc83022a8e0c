"""Backfill: bring to S3 what it lacks, while the site serves traffic."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from django_dualstorage import records
from django_dualstorage.core.compare import Action, reconcile_action
from django_dualstorage.core.names import is_reserved
from django_dualstorage.core.objects import ListedObject
from django_dualstorage.core.report import FileResult, Outcome, Report
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.engine.pool import Pool, Stop
from django_dualstorage.exceptions import S3Error, UnmovableError
from django_dualstorage.operations.gate import RefusedError, S3Watch, demand_local_truth, demand_same_volume
from django_dualstorage.operations.probe import probe
from django_dualstorage.protocol.reconcile import adoptable, reconcile
from django_dualstorage.sides.walk import walk
from django_dualstorage.storage import DualWriteStorage
from django_dualstorage.wiring import DEFAULT_ALIAS

logger = logging.getLogger("django_dualstorage.backfill")

#: A file as young as this may be written to again within one tick of the kernel's clock and so keep its version:
#: it is copied once it is older. Seconds.
SETTLE = 2.0

_WOULD = {
    Action.NOTHING: Outcome.CERTIFIED,
    Action.UPLOAD: Outcome.UPLOADED,
    Action.REPLACE: Outcome.REPLACED,
    Action.ADOPT: Outcome.ADOPTED,
}


class Backfill:
    """One run over the tree of one storage."""

    def __init__(
        self,
        storage: DualWriteStorage,
        *,
        prefix: str = "",
        workers: int = 16,
        dry_run: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._pair = storage.pair
        self._watch = S3Watch(storage.pair)
        self._prefix = prefix
        self._workers = workers
        self._dry_run = dry_run
        self._clock = clock

    def run(self, stop: Stop, on_result: Callable[[FileResult], None]) -> Report:
        """Look at every file and copy what S3 lacks; the report of it. ``on_result`` hears of each file.

        Running it again does only what is left. Raises RefusedError, S3Error if S3 cannot be used at all,
        JournalError, FileNotFoundError if MEDIA_ROOT is not there.
        """
        self._demand_sense()
        demand_same_volume(self._storage)
        if not self._dry_run and not self._prefix:
            records.demand_tables()
        started = time.monotonic()
        report = Report(dry_run=self._dry_run)
        if not self._dry_run and not self._pair.s3.honours_conditions:
            probe(self._pair)
        listed = dict(self._pair.s3.list_all(self._prefix))
        pool = Pool(self._examine if self._dry_run else self._copy, self._workers, stop)
        for result in pool.run(self._todo(listed)):
            report.add(result)
            on_result(result)
        if listed and not report.files and not self._prefix and not stop:
            raise RefusedError(
                f"MEDIA_ROOT {self._storage.root} has no files, but S3 has {len(listed):,} under its prefix. "
                "Is the volume mounted? Nothing was changed."
            )
        report.interrupted = bool(stop)
        if not stop:  # else those of the files that were not reached are among them
            report.add_s3_only(name for name in listed if not is_reserved(name))
        report.seconds = time.monotonic() - started
        if not self._dry_run and not self._prefix and report.files:
            self._record(report)
        return report

    def _demand_sense(self) -> None:
        """A run takes hours, and the phase may change meanwhile: over an S3 that is the truth nothing is copied."""
        demand_local_truth(self._storage, "backfill")
        self._watch.demand()

    def _record(self, report: Report) -> None:
        records.set_certified(
            self._storage.alias or DEFAULT_ALIAS,
            complete=report.complete,
            phase=self._storage.policy.phase,
            volume_id=self._pair.journal.volume_id,
        )
        self._storage.records.forget()

    def _todo(self, listed: dict[str, ListedObject]) -> Iterator[tuple[str | FileResult, ListedObject | None]]:
        """Each thing on the disk with its object; what stays in ``listed`` at the end is only on S3."""
        for found in walk(self._storage.root, self._prefix):
            yield found, listed.pop(found, None) if isinstance(found, str) else None

    def _copy(self, item: tuple[str | FileResult, ListedObject | None]) -> FileResult:
        found, listed = item
        if isinstance(found, FileResult):
            return found
        self._demand_sense()
        try:
            if listed is not None and (certified := self._certified(found)):
                return certified
        except S3Error as error:
            return FileResult(found, Outcome.FAILED, detail=f"{error}; run the command again")
        except UnmovableError as error:
            return FileResult(found, Outcome(error.reason), detail=str(error))
        self._let_settle(found)
        return reconcile(
            self._pair, self._storage.policy, found, now=self._clock(), missing_on_s3=listed is None, expected=True
        )

    def _certified(self, name: str) -> FileResult | None:
        """The result for a file that S3 has in this very version: no hint, no lock, one HEAD."""
        local = self._version(name)
        if local is None or self._pair.journal.has_hint(name):
            return None
        remote = self._pair.s3.head(name, patient=True)
        if remote is not None and reconcile_action(local, remote) is Action.NOTHING:
            return FileResult(name, Outcome.CERTIFIED, local.size)
        return None

    def _version(self, name: str) -> Stamp | None:
        try:
            return self._pair.local.version(name)
        except OSError:
            return None  # whoever opens it will say why

    def _let_settle(self, name: str) -> None:
        local = self._version(name)
        if local is not None:
            age = self._clock() - local.mtime_ns / 1e9
            if 0 <= age < SETTLE:
                time.sleep(SETTLE - age)

    def _examine(self, item: tuple[str | FileResult, ListedObject | None]) -> FileResult:
        """What a run would do with it; the same questions, nothing changed."""
        found, listed = item
        if isinstance(found, FileResult):
            return found
        try:
            self._pair.s3.key(found)
            file, local = self._pair.local.open_movable(found)
            with file:
                remote = self._pair.s3.head(found, patient=True) if listed is not None else None
                action = reconcile_action(local, remote)
                if action is Action.ADOPT and not adoptable(self._pair, found, file, remote):
                    action = Action.REPLACE
        except UnmovableError as error:
            return FileResult(found, Outcome(error.reason), detail=str(error))
        except FileNotFoundError:
            return FileResult(found, Outcome.VANISHED, detail="was deleted while the command ran")
        except (S3Error, OSError) as error:
            return FileResult(found, Outcome.FAILED, detail=str(error))
        return FileResult(found, _WOULD[action], local.size)
