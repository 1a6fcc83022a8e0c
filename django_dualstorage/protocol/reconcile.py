"""Reconcile: make one name equal on both sides. Backfill, repair and the admin's actions are all this."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import BinaryIO

from django_dualstorage.core.compare import Action, reconcile_action
from django_dualstorage.core.names import JOURNAL_DIR
from django_dualstorage.core.objects import ObjectInfo, Written
from django_dualstorage.core.phases import Policy
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.core.steps import Step
from django_dualstorage.engine.boto import MIB
from django_dualstorage.engine.objectstore import ALWAYS, Body, Condition, Source
from django_dualstorage.exceptions import (
    JournalError,
    NameTakenError,
    S3Error,
    S3NotFoundError,
    S3PreconditionError,
    UnmovableError,
)
from django_dualstorage.hints import DeadHint, Kind, is_remnant_by
from django_dualstorage.protocol.home import bring_home
from django_dualstorage.protocol.operation import Operation
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.sides.filesystem import version_of

logger = logging.getLogger("django_dualstorage.reconcile")

_MD5_ETAG = re.compile(r'"[0-9a-f]{32}"')
#: "CopyObject", Amazon S3 API Reference: larger objects cannot be copied in one request.
_MAX_COPY = 5 * 1024 * MIB
_TRIES = 3

_DONE = {
    Action.UPLOAD: Outcome.UPLOADED,
    Action.REPLACE: Outcome.REPLACED,
    Action.ADOPT: Outcome.ADOPTED,
    Action.DELETE: Outcome.DELETED,
}


class _ChangedError(Exception):
    """The local file changed while it was copied."""


def reconcile(
    pair: Pair,
    policy: Policy,
    name: str,
    *,
    now: float,
    missing_on_s3: bool = False,
    expected: bool = False,
    compare_bytes: bool = False,
) -> FileResult:
    """Make the side that is not the truth equal to the one that is, for one name, under its lock.

    Every problem is an outcome, not an exception, except a journal that cannot be used (JournalError). ``now`` is the
    clock, seconds since the epoch. ``missing_on_s3``: a listing lacked the object, so it need not be asked for.
    ``expected``: the file was on the disk a moment ago, so its absence is reported. ``compare_bytes``: where the disk
    is the truth, an equal stamp is not believed before the bytes were compared.
    """
    try:
        with Operation(pair, Kind.RECONCILE, name, phase=policy.phase.value) as operation, operation.lock():
            return _Reconciliation(pair, name, operation, now).run(
                policy, missing_on_s3=missing_on_s3, expected=expected, compare_bytes=compare_bytes
            )
    except UnmovableError as error:
        return FileResult(name, Outcome(error.reason), detail=str(error))
    except NameTakenError as error:
        return FileResult(name, Outcome.CHANGED, detail=f"{error}; run the command again", clean=False)
    except _ChangedError:
        return FileResult(
            name, Outcome.CHANGED, detail="was written to all the time while it was copied; run the command again"
        )
    except JournalError:
        raise
    except S3Error as error:
        detail = f"{error}; {error.advice}"
        refused = error.is_refusal and operation.sent
        return FileResult(name, Outcome.FAILED, detail=detail, clean=False, refused=refused)
    except OSError as error:
        return FileResult(name, Outcome.FAILED, detail=f"{error}; run the command again", clean=False)


@dataclass
class _Reconciliation:
    """One attempt, under the lock."""

    pair: Pair
    name: str
    operation: Operation
    now: float
    #: Every answer so far was clean.
    clean: bool = True
    #: The operations whose objects S3 was seen to have in this attempt; None if nobody has looked.
    seen: set[str | None] | None = None

    def run(self, policy: Policy, *, missing_on_s3: bool, expected: bool, compare_bytes: bool) -> FileResult:
        self.pair.observe(Step.READ)
        hints = self.pair.journal.dead_hints_of(self.name, but=self.operation.id)
        try:
            if policy.local_truth:
                result = self._disk_to_s3(
                    hints, missing_on_s3=missing_on_s3, expected=expected, compare_bytes=compare_bytes
                )
            else:
                result = self._s3_to_disk()
        except BaseException:
            self._keep(hints)
            raise
        waiting = self._forget(hints) if self.operation.settled else self._keep(hints)
        return replace(result, clean=self.operation.settled and not waiting)

    def _forget(self, hints: list[DeadHint]) -> int:
        """Remove what the ended operations left. Returns how many must wait because a late request of theirs could
        still undo what was done here.
        """
        waiting = 0
        for hint in hints:
            self.pair.local.remove_staged(self.name, hint.record.op_id)
            if hint.may_still_land(self.pair.grace, self.now):
                waiting += 1
            else:
                self.pair.journal.forget(hint)
        return waiting

    def _keep(self, hints: list[DeadHint]) -> int:
        """An attempt that failed keeps the hints of those before it, for each may be the one whose object S3 has, or
        whose request still lands. Only attempts of which neither can be are forgotten: a repair that fails again and
        again must not fill the journal. Returns how many stay.
        """
        idle = [hint for hint in hints if hint.record.kind is Kind.RECONCILE and self._is_idle(hint)]
        for hint in idle:
            self.pair.journal.forget(hint)
        return len(hints) - len(idle)

    def _is_idle(self, hint: DeadHint) -> bool:
        if not hint.last_sent:
            return True
        seen_other = self.seen is not None and hint.record.op_id not in self.seen
        return seen_other and not hint.may_still_land(self.pair.grace, self.now)

    # -- the disk is the truth -------------------------------------------------------------------------------------

    def _disk_to_s3(
        self, hints: list[DeadHint], *, missing_on_s3: bool, expected: bool, compare_bytes: bool
    ) -> FileResult:
        # A listing may be old, but under the lock a PUT of what the disk has now is right whatever S3 has got since.
        known = missing_on_s3 and not hints
        for tries_left in reversed(range(_TRIES)):
            with self._local_file() as (file, local):
                remote = None if known else self._remote(local)
                if not known:
                    self.seen = {*(self.seen or ()), remote.op_id if remote else None}
                # Of the ended only: whoever lives will see to its own remains.
                remnant = remote is not None and is_remnant_by((hint.record for hint in hints), remote)
                action = reconcile_action(local, remote, remnant=remnant)
                doubted = action is Action.ADOPT or (compare_bytes and action is Action.NOTHING and file is not None)
                if doubted and not adoptable(self.pair, self.name, file, remote):
                    action = Action.REPLACE
                try:
                    etag = self._carry_out(action, file, local, remote, hints)
                except S3PreconditionError as error:
                    if not tries_left or error.retried:
                        raise
                    self.operation.settled = self.clean  # refused, so nothing was done: look again
                    known = False
                    continue
                except _ChangedError:
                    if not tries_left:
                        raise
                    known = False
                    continue
                if action is Action.NOTHING and local is not None:
                    self.operation.settled = self.clean  # an attempt before this one may have left it open
            if expected and local is None and action is Action.NOTHING:
                return FileResult(self.name, Outcome.VANISHED, detail="was deleted while the command ran")
            return FileResult(self.name, _outcome(action, local), local.size if local else 0, version=local, etag=etag)
        raise AssertionError("unreachable")

    def _remote(self, local: Stamp | None) -> ObjectInfo | None:
        try:
            return self.pair.s3.head(self.name, patient=True)
        except UnmovableError:
            if local is not None:
                raise
            return None  # a file that S3 could not take is gone, and with it the problem

    def _carry_out(
        self,
        action: Action,
        file: BinaryIO | None,
        local: Stamp | None,
        remote: ObjectInfo | None,
        hints: list[DeadHint],
    ) -> str:
        """The ETag of what S3 has now, empty for nothing."""
        pair, operation = self.pair, self.operation
        if action is Action.NOTHING:
            return remote.etag if remote is not None else ""
        fence = self._fence(remote)
        if action is Action.DELETE:
            pair.observe(Step.DELETE)
            self._note(pair.s3.delete(self.name, condition=fence, patient=True, sending=operation.sending))
            return ""
        if file is None or local is None:
            raise AssertionError("the rule has no other action for a file that is not there")
        content_type = _content_type(hints, remote)
        pair.observe(Step.PUT)
        try:
            if action is Action.ADOPT and remote is not None:
                written = pair.s3.restamp(
                    remote, local, operation.id, content_type=content_type, sending=operation.sending
                )
            else:
                written = pair.s3.put(
                    self.name,
                    Source(file.fileno(), local.size),
                    local,
                    operation.id,
                    content_type=content_type,
                    condition=fence,
                    patient=True,
                    sending=operation.sending,
                )
        except S3Error as error:
            if not error.sent and self._changed(file, local):
                raise _ChangedError from error  # it shrank: not all of its bytes were there to send
            raise
        self._note(written)
        if self._changed(file, local):
            # The stamp is that of before, so no reader takes the object for the new version.
            operation.settled = False
            raise _ChangedError
        return written.etag

    def _changed(self, file: BinaryIO, local: Stamp) -> bool:
        """Whether somebody who goes around the storage wrote meanwhile."""
        return version_of(file.fileno()) != local or self.pair.local.version(self.name) != local

    def _note(self, written: Written) -> None:
        self.clean = self.clean and written.clean
        self.operation.settled = self.clean

    def _fence(self, remote: ObjectInfo | None) -> Condition:
        """The condition under which S3 is as it was seen, where the server honours conditions."""
        if not self.pair.s3.honours_conditions:
            return ALWAYS
        if remote is None:
            return Condition(absent=True)
        return Condition(etag=remote.etag)

    @contextmanager
    def _local_file(self) -> Iterator[tuple[BinaryIO | None, Stamp | None]]:
        try:
            file, local = self.pair.local.open_movable(self.name)
        except (FileNotFoundError, NotADirectoryError):
            yield None, None
            return
        with file:
            yield file, local

    # -- S3 is the truth -------------------------------------------------------------------------------------------

    def _s3_to_disk(self) -> FileResult:
        local = self.pair.local.version(self.name)
        try:
            body = self.pair.s3.get(self.name, patient=True)
        except S3NotFoundError:
            if local is None:
                return FileResult(self.name, Outcome.NOTHING)
            self.pair.observe(Step.UNLINK)
            self.operation.settled = False
            _quarantine(self.pair, self.name, self.now)
            self.operation.settled = True
            return FileResult(self.name, Outcome.QUARANTINED, local.size)
        try:
            if local is not None and body.info.stamp == local:
                return FileResult(self.name, Outcome.CERTIFIED, local.size)
            self.operation.settled = False
            bring_home(self.pair, self.name, self.operation.id, body, over=local)
            self.operation.settled = True
            return FileResult(self.name, Outcome.BROUGHT_HOME, body.info.size)
        finally:
            body.close()


def adoptable(pair: Pair, name: str, file: BinaryIO | None, remote: ObjectInfo | None) -> bool:
    """Whether the unstamped object has the very bytes of the file, and can be copied onto itself. Raises S3Error."""
    if file is None or remote is None or remote.size > _MAX_COPY:
        return False
    if _MD5_ETAG.fullmatch(remote.etag) and remote.etag.strip('"') == _md5(file):
        return True
    # Not an MD5 for parts, nor under some encryption ("Checking object integrity", Amazon S3 User Guide).
    body = pair.s3.get(name, etag=remote.etag, patient=True)
    try:
        return same_bytes(file, body)
    finally:
        body.close()


def _outcome(action: Action, local: Stamp | None) -> Outcome:
    if action is Action.NOTHING:
        return Outcome.NOTHING if local is None else Outcome.CERTIFIED
    return _DONE[action]


def _content_type(hints: list[DeadHint], remote: ObjectInfo | None) -> str:
    """The type that the application gave the file, as far as anybody still knows it; empty to go by the name."""
    for hint in reversed(hints):
        if hint.record.content_type:
            return hint.record.content_type
    return remote.content_type if remote is not None and remote.stamp is not None else ""


def _md5(file: BinaryIO) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    file.seek(0)
    while chunk := file.read(MIB):
        digest.update(chunk)
    return digest.hexdigest()


def same_bytes(file: BinaryIO, body: Body) -> bool:
    """Whether the answer has the bytes of the file, read from its beginning. Raises S3TransientError."""
    file.seek(0)
    while theirs := body.read(MIB):
        if file.read(len(theirs)) != theirs:
            return False
    return not file.read(1)


def _quarantine(pair: Pair, name: str, now: float) -> None:
    """Move a local file that S3, the truth, does not have out of the tree: nothing is deleted on the way."""
    day = datetime.fromtimestamp(now, tz=timezone.utc).strftime("%Y-%m-%d")
    target = pair.local.path(f"{JOURNAL_DIR}/quarantine/{day}/{name}")
    os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
    if os.path.lexists(target):  # the second of this name today
        target = f"{target}.{time.time_ns()}"
    os.replace(pair.local.path(name), target)
    logger.warning("%s is not on S3, which is the truth in this phase; moved to %s", name, target)
