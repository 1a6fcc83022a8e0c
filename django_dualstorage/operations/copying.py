"""What backfill does with one name: copy it, bring it home, or say what it would do."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import Enum
from typing import Final

from django_dualstorage.core.compare import Action, reconcile_action
from django_dualstorage.core.objects import ListedObject, ObjectInfo
from django_dualstorage.core.phases import Policy
from django_dualstorage.core.report import FileResult, Outcome
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.engine.concurrency import Pace
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3PreconditionError, UnmovableError
from django_dualstorage.hints import is_remnant_by
from django_dualstorage.operations.comparison import Compared
from django_dualstorage.protocol.fetch import fetch, why_kept
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.protocol.reconcile import adoptable, reconcile
from django_dualstorage.sides.filesystem import version_of

#: A file as young as this may be written to again within one tick of the kernel's clock and so keep its version:
#: it is copied once it is older. Seconds.
SETTLE: Final = 2.0

_WOULD: Final = {
    Action.NOTHING: Outcome.CERTIFIED,
    Action.UPLOAD: Outcome.UPLOADED,
    Action.REPLACE: Outcome.REPLACED,
    Action.ADOPT: Outcome.ADOPTED,
}
_UNKNOWN_TIME: Final = datetime.fromtimestamp(0, timezone.utc)


class Belief(str, Enum):
    """What is taken as proof that an object is the copy of a file. The value is the word on the command line."""

    #: The object's stamp is the file's version.
    STAMP = "stamp"
    #: The object has the file's size. Says nothing of the content.
    SIZE = "size"
    #: Its stamp is the file's version, and the bytes were compared.
    HASH = "hash"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Copying:
    """One name at a time, from any thread. Every problem is an outcome; raises JournalError."""

    pair: Pair
    belief: Belief
    hinted: Container[str]
    #: Seconds since the epoch.
    clock: Callable[[], float]
    pace: Pace

    # -- to S3 -----------------------------------------------------------------------------------------------------

    def to_s3(self, one: Compared, policy: Policy) -> FileResult:
        """Bring S3 what it lacks of the file."""
        if one.odd is not None:
            return one.odd
        try:
            if one.listed is not None and one.name not in self.hinted and (equal := self._equal(one, one.listed)):
                return equal
        except UnmovableError as error:
            return FileResult(one.name, Outcome(error.reason), detail=str(error))
        except S3Error as error:
            return FileResult(one.name, Outcome.FAILED, detail=f"{error}; {error.advice}")
        except OSError as error:
            return FileResult(one.name, Outcome.FAILED, detail=f"{error}; run the command again")
        self._let_settle(one)
        with self.pace.carrying(one.local.size if one.local else 0):
            return reconcile(
                self.pair,
                policy,
                one.name,
                now=self.clock(),
                missing_on_s3=one.listed is None,
                expected=True,
                compare_bytes=self.belief is Belief.HASH,
            )

    def _equal(self, one: Compared, listed: ListedObject) -> FileResult | None:
        """The result for a file that S3 has in this very version: no hint, no lock, at most one HEAD."""
        if self.belief is Belief.HASH:
            return self._equal_in_bytes(one, listed)
        local = self._version(one.name)
        if local is None:
            return None
        remote = self.pair.s3.head(one.name, patient=True)
        if remote is not None and reconcile_action(local, remote) is Action.NOTHING:
            return FileResult(one.name, Outcome.CERTIFIED, local.size, version=local, etag=remote.etag)
        return None

    def _equal_in_bytes(self, one: Compared, listed: ListedObject) -> FileResult | None:
        try:
            file, local = self.pair.local.open_movable(one.name)
        except FileNotFoundError:
            return None  # reconcile says so
        with file:
            remote: ObjectInfo | None
            if one.certified and local == one.local:
                remote = ObjectInfo(listed.key, listed.size, listed.etag, _UNKNOWN_TIME)
            else:
                remote = self.pair.s3.head(one.name, patient=True)
                if reconcile_action(local, remote) is not Action.NOTHING:
                    return None
            try:
                same = adoptable(self.pair, one.name, file, remote)
            except (S3PreconditionError, S3NotFoundError):
                return None  # it has changed since it was listed
            if not same or version_of(file.fileno()) != local or remote is None:
                return None
            return FileResult(one.name, Outcome.CERTIFIED, local.size, version=local, etag=remote.etag)

    def _version(self, name: str) -> Stamp | None:
        try:
            return self.pair.local.version(name)
        except OSError:
            return None  # whoever opens it will say why

    def _let_settle(self, one: Compared) -> None:
        # As the walk saw it: one that was written since is looked at under the lock before and after the upload.
        local = self._version(one.name)
        if local is not None:
            age = self.clock() - local.mtime_ns / 1e9
            if 0 <= age < SETTLE:
                time.sleep(SETTLE - age)

    def would_to_s3(self, one: Compared, policy: Policy) -> FileResult:
        """What :meth:`to_s3` would do; the same questions, nothing changed."""
        if one.odd is not None:
            return one.odd
        name = one.name
        try:
            self.pair.s3.key(name)
            file, local = self.pair.local.open_movable(name)
            with file:
                remote = self.pair.s3.head(name, patient=True) if one.listed is not None else None
                action = reconcile_action(local, remote)
                doubted = action is Action.ADOPT or (self.belief is Belief.HASH and action is Action.NOTHING)
                if doubted and not adoptable(self.pair, name, file, remote):
                    action = Action.REPLACE
        except UnmovableError as error:
            return FileResult(name, Outcome(error.reason), detail=str(error))
        except FileNotFoundError:
            return FileResult(name, Outcome.VANISHED, detail="was deleted while the command ran")
        except S3Error as error:
            return FileResult(name, Outcome.FAILED, detail=f"{error}; {error.advice}")
        except OSError as error:
            return FileResult(name, Outcome.FAILED, detail=str(error))
        # As of a real run: what it does here itself is done cleanly, as far as anybody knows.
        return FileResult(name, _WOULD[action], local.size, clean=not self._must_wait(name))

    def _must_wait(self, name: str) -> bool:
        """Whether a request of an ended operation could still land, so that its hint would stay."""
        if name not in self.hinted:
            return False
        return any(hint.may_still_land(self.pair.grace, self.clock()) for hint in self.pair.journal.dead_hints_of(name))

    # -- to the disk -----------------------------------------------------------------------------------------------

    def to_disk(self, one: Compared, policy: Policy) -> FileResult:
        """Bring the disk what it lacks of the object."""
        with self.pace.carrying(0):  # what comes is counted when its size is known
            return fetch(self.pair, policy, one.name)

    def would_to_disk(self, one: Compared, policy: Policy) -> FileResult:
        """What :meth:`to_disk` would do."""
        pair, name = self.pair, one.name
        try:
            remote = pair.s3.head(name, patient=True)
            if remote is None:
                return FileResult(name, Outcome.VANISHED, detail="was deleted from S3 while the command ran")
            if pair.local.exists(name) and (kept := why_kept(pair, policy, name, remote)):
                return kept
            remnant = is_remnant_by(pair.journal.hints_of(name), remote)
        except UnmovableError as error:
            return FileResult(name, Outcome(error.reason), detail=str(error))
        except (S3Error, OSError) as error:
            return FileResult(name, Outcome.FAILED, detail=str(error))
        if remnant:
            return FileResult(name, Outcome.NOTHING)
        return FileResult(name, Outcome.BROUGHT_HOME, remote.size)
