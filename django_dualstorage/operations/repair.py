"""Repair: drain the hints that failed, killed and deferred operations left."""

from __future__ import annotations

import time
from collections.abc import Callable

from django_dualstorage.core.names import JOURNAL_DIR
from django_dualstorage.core.report import FileResult, Outcome, Report
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.objectstore import ObjectStore
from django_dualstorage.engine.pool import Pool, Stop
from django_dualstorage.engine.retry import Patience, RetryingStore
from django_dualstorage.exceptions import JournalError, S3Error, UnmovableError
from django_dualstorage.hints import Kind
from django_dualstorage.operations.gate import RefusedError, S3Watch, demand_same_volume
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.sides.walk import walk
from django_dualstorage.storage import DualWriteStorage

#: Repair deletes from S3 what was deleted from the disk. More than this many at once is looked at twice ...
MANY = 100
#: ... and must be less than this share of the files that are left.
SHARE = 0.1
#: One answer that goes wrong is no S3 that cannot be used.
_TRIAL = Patience(attempts=3)


def repair(
    storage: DualWriteStorage,
    stop: Stop,
    on_result: Callable[[FileResult], None],
    *,
    workers: int = 8,
    force: bool = False,
    report: Report | None = None,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Bring every name that has a hint to what the truth says, and forget the hints that need not wait.

    The report's ``pending`` counts names whose hints stay, because a late request could still land or S3 did not
    answer. Whoever hands in an empty ``report`` has what was done before an error, too. ``force`` lifts the brake on
    mass deletion. Raises RefusedError, JournalError, S3Error if S3 cannot be used at all.
    """
    report = Report() if report is None else report
    demand_same_volume(storage)
    started = time.monotonic()
    pair, policy = storage.pair, storage.policy
    watch = S3Watch(pair)
    pair.journal.sweep()

    def on_damaged(path: str, error: JournalError) -> None:
        damaged = FileResult(path, Outcome.FAILED, detail=str(error))
        report.add(damaged)
        on_result(damaged)

    names = list(pair.journal.names_with_dead_hints(on_damaged))
    if names:
        _try_out(pair, stop)
    if policy.local_truth and not force:
        brake(storage, names)

    def reconciled(name: str) -> FileResult:
        watch.demand()
        return reconcile(pair, storage.policy, name, now=clock())

    done = 0
    for result in Pool(reconciled, workers, stop).run(names):
        report.add(result)
        done += 1
        on_result(result)
        watch.hear(result)
    report.interrupted = bool(stop)
    report.left = len(names) - done if stop else None
    report.seconds = time.monotonic() - started
    return report


def _try_out(pair: Pair, stop: Stop) -> None:
    """Ask once, so that a wrong key or bucket is told once and not of each file. Raises S3Error."""

    def patient(store: ObjectStore) -> ObjectStore:
        return RetryingStore(store, _TRIAL, stop=lambda: bool(stop)) if isinstance(store, BotoStore) else store

    for _ in pair.s3.through(patient).list_all(f"{JOURNAL_DIR}/"):
        break


def _may_have_object(pair: Pair, name: str) -> bool:
    try:
        return pair.s3.head(name, patient=True) is not None
    except UnmovableError:
        return False
    except S3Error:
        return True  # not known


def brake(storage: DualWriteStorage, names: list[str]) -> None:
    """Refuse to delete en masse what the application did not ask to delete: a volume that is not mounted, or was
    emptied by hand, looks like "everything was deleted".
    """
    pair = storage.pair
    gone = [
        name
        for name in names
        if not pair.local.exists(name)
        and not any(hint.record.kind is Kind.DELETE for hint in pair.journal.dead_hints_of(name))
    ]
    if len(gone) < MANY:
        return
    enough = len(gone) / SHARE
    left = 0
    for found in walk(storage.root):
        left += isinstance(found, str)
        if left >= enough:
            return
    # Saves that failed before they were ever committed leave hints without a file, too, but nothing to delete.
    gone = [name for name in gone if _may_have_object(pair, name)]
    if len(gone) < MANY:
        return
    raise RefusedError(
        f"{len(gone)} files with hints are not on the disk, and only {left} files are there. Is MEDIA_ROOT "
        f"{storage.root} mounted and whole? First of them: {', '.join(gone[:3])}. If they were really deleted, "
        "run manage.py dualstorage_repair --force."
    )
