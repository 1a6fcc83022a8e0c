"""One file from S3 to the disk, under its hint and its lock: backfill in the other direction."""

from __future__ import annotations

import os

from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.phases import Policy
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.core.steps import Step
from django_dualstorage.exceptions import JournalError, NameTakenError, S3Error, S3NotFoundError, UnmovableError
from django_dualstorage.hints import Kind, is_remnant_by
from django_dualstorage.protocol.home import bring_home
from django_dualstorage.protocol.operation import Operation
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.protocol.reconcile import adoptable


def fetch(pair: Pair, policy: Policy, name: str) -> FileResult:
    """Bring one file from S3 to the disk.

    What the disk has is left alone where the disk is the truth, and everywhere if it is newer than what S3 has. Every
    problem is an outcome, not an exception, except a journal that cannot be used (JournalError).
    """
    try:
        with Operation(pair, Kind.RECONCILE, name, phase=policy.phase.value) as operation, operation.lock():
            return _fetch_under_lock(pair, policy, name, operation)
    except UnmovableError as error:
        return FileResult(name, Outcome(error.reason), detail=str(error))
    except S3NotFoundError:
        return FileResult(name, Outcome.VANISHED, detail="was deleted from S3 while the command ran")
    except NameTakenError:
        return FileResult(name, Outcome.CHANGED, detail="was written on the disk meanwhile; run the command again")
    except JournalError:
        raise
    except (S3Error, OSError) as error:
        return FileResult(name, Outcome.FAILED, detail=f"{error}; run the command again")


def _fetch_under_lock(pair: Pair, policy: Policy, name: str, operation: Operation) -> FileResult:
    pair.observe(Step.READ)
    _demand_inside(pair, name)
    on_disk = pair.local.exists(name)
    judged = pair.local.version(name)
    if on_disk and (kept := why_kept(pair, policy, name, pair.s3.head(name, patient=True))):
        return kept
    body = pair.s3.get(name, patient=True)
    try:
        info = body.info
        if is_remnant_by(pair.journal.hints_of(name), info):
            return FileResult(
                name, Outcome.NOTHING, detail="is what an operation left; manage.py dualstorage_repair removes it"
            )
        if on_disk and (kept := why_kept(pair, policy, name, info)):
            return kept  # the object has changed since it was asked for
        if info.stamp is not None and info.stamp.size != info.size:
            return FileResult(
                name,
                Outcome.FAILED,
                detail=f"is damaged on S3: {info.size:,} bytes, where its stamp says {info.stamp.size:,}; restore an "
                "older version of the object",
            )
        # The operation stays settled: S3 is not touched, and the disk in one step or not at all.
        bring_home(pair, name, operation.id, body, over=judged)
    finally:
        body.close()
    version = info.stamp if info.stamp is not None and info.stamp.size == info.size else None
    return FileResult(name, Outcome.BROUGHT_HOME, info.size, version=version, etag=info.etag)


def why_kept(pair: Pair, policy: Policy, name: str, info: ObjectInfo | None) -> FileResult | None:
    """Why a name that the disk has is not replaced by the object; None if it is to be."""
    if info is None:
        raise S3NotFoundError(f"{name} is not on S3")
    local = pair.local.version(name)
    if local is None:
        return FileResult(name, Outcome.KEPT, detail="is a folder or a broken link on the disk; move it out of the way")
    if info.stamp == local and info.size == local.size:
        return FileResult(name, Outcome.CERTIFIED, local.size, version=local, etag=info.etag)
    if _same_bytes(pair, name, info):
        return FileResult(name, Outcome.CERTIFIED, local.size)  # but not this version's copy: it has no stamp
    if policy.local_truth:
        return FileResult(
            name,
            Outcome.KEPT,
            local.size,
            f"differs from what S3 has, and in phase {policy.phase} the disk is the truth; "
            "run manage.py dualstorage_backfill without --reverse",
        )
    theirs = info.stamp.seconds if info.stamp is not None else info.last_modified.timestamp()
    if local.seconds > theirs:
        return FileResult(
            name,
            Outcome.KEPT,
            local.size,
            "is newer on the disk than on S3, though S3 is the truth; move it out of MEDIA_ROOT if S3 is right, "
            "or save it through the site if it is not",
        )
    return None


def _demand_inside(pair: Pair, name: str) -> None:
    """A link to a folder elsewhere would have the file written outside MEDIA_ROOT. Raises UnmovableError."""
    folder = os.path.realpath(os.path.dirname(pair.local.path(name)))
    root = os.path.realpath(pair.local.root)
    if folder != root and not folder.startswith(root + os.sep):
        raise UnmovableError("symlink", f"would be written to {folder}, outside MEDIA_ROOT; remove the link to there")


def _same_bytes(pair: Pair, name: str, info: ObjectInfo) -> bool:
    """Whether an object that nobody stamped has the bytes of the file. Raises S3Error, UnmovableError, OSError."""
    if info.stamp is not None:
        return False
    file, local = pair.local.open_movable(name)
    with file:
        return local.size == info.size and adoptable(pair, name, file, info)
