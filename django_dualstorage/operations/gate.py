"""What must hold before a command touches anything."""

from __future__ import annotations

import os
from typing import Final

from django_dualstorage.core.phases import Policy
from django_dualstorage.core.report import FileResult
from django_dualstorage.exceptions import DualStorageError, JournalError, S3Error, S3UnavailableError
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.storage import DualWriteStorage

#: So many files are no accident of one file's permissions.
_REFUSED_IN_A_ROW: Final = 5


class RefusedError(DualStorageError):
    """A gate is closed: what the command would do is not safe now. Exit code 3."""


def demand_same_volume(storage: DualWriteStorage) -> None:
    """Refuse to work on another volume than the commands before, which an unmounted volume looks like.

    Raises FileNotFoundError if MEDIA_ROOT is not there, before anything could make it.
    """
    if not os.path.isdir(storage.root):
        raise FileNotFoundError(f"MEDIA_ROOT {storage.root} is not a folder. Is its volume mounted?")
    recorded = storage.known.volume_id
    here = storage.volume_id
    if recorded and recorded != here:
        storage.records.withdraw()  # a process on the wrong disk is none of the site's
        _demand_access(storage)
        raise RefusedError(
            f"MEDIA_ROOT {storage.root} has volume id {here or 'none'}, but this site's files lie on "
            f"volume {recorded}. "
            'Is the volume mounted? If MEDIA_ROOT has moved for good, run: manage.py shell -c "from '
            f"django_dualstorage.records import forget_volume; forget_volume('{storage.alias}')\""
        )


def _demand_access(storage: DualWriteStorage) -> None:
    try:
        storage.pair.journal.demand_access()
    except JournalError as error:
        raise RefusedError(str(error)) from error


def demand_local_truth(storage: DualWriteStorage, command: str) -> Policy:
    """Refuse to copy the disk over S3 where S3 is the truth. What is done then has to go by the policy returned: the
    phase may have changed when it is asked for again.
    """
    policy = storage.policy
    if not policy.local_truth:
        raise RefusedError(
            f"In phase {policy.phase} S3 is the truth: {command} would copy the disk over it. Nothing to do here."
        )
    return policy


def demand_deletions_reach_s3(storage: DualWriteStorage) -> Policy:
    """Refuse to bring home what may have been deleted: where only the disk is written, S3 keeps what the disk loses.
    What is done then has to go by the policy returned.
    """
    policy = storage.policy
    if policy.local_truth and not policy.writes_both:
        raise RefusedError(
            f"In phase {policy.phase} deletions do not reach S3, so what only S3 has may have been deleted by the "
            "site a moment ago. Go to phase mirror first, then run the command again."
        )
    return policy


class S3Watch:
    """Ends a run over many files when S3 is given up during it, rather than let each file wait for its time-out; and
    when S3 refuses to take one file after the other, rather than tell the same of each. That a few objects may not be
    read is no reason: somebody else may own them.
    """

    def __init__(self, pair: Pair) -> None:
        self._s3 = pair.s3
        self._before = pair.s3.times_given_up
        self._refused = 0

    def demand(self) -> None:
        """Raises S3UnavailableError if S3 has failed repeatedly since the run began."""
        if self._s3.times_given_up > self._before:
            raise S3UnavailableError(
                "S3 has failed repeatedly. Run the command again when it answers; it does only what is left."
            )

    def hear(self, result: FileResult) -> None:
        """Raises S3Error if S3 has refused to take file after file. For one thread."""
        if result.refused:
            self._refused += 1
        elif result.outcome.changes_s3:
            self._refused = 0
        if self._refused >= _REFUSED_IN_A_ROW:
            raise S3Error(
                f"S3 has refused to take {self._refused} files in a row. The last: {result.name}: {result.detail}"
            )
