"""The steps of every operation, in the one order in which the proof holds.

The protocol announces each step as it takes it, the tests hold what it announced against these tuples, and the
model checker in ``tests/model`` builds its processes from them: a change of order in the code that is not made here
fails a test, and a change made here changes the model.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final


class Step(str, Enum):
    """One step: at most one system call or one S3 request that anybody else can see."""

    HINT = "hint"  # announce the operation in the journal
    STAGE = "stage"  # write the bytes into a temporary file that nobody else looks at
    LOCK = "lock"  # take the lock of the name
    STAMP = "stamp"  # give the staged version its unique modification time
    PUT = "put"  # S3: write the object, stamped
    DELETE = "delete"  # S3: remove the object
    COMMIT = "commit"  # local: link or rename the staged file into its name
    UNLINK = "unlink"  # local: remove the name
    READ = "read"  # look at the local version and, where needed, at the object's stamp
    CLEAR = "clear"  # forget the hint if every answer was clean, release the lock


Observer = Callable[[Step], None]
"""Called with each step just before it is taken."""


def unobserved(step: Step) -> None:
    """The observer of production: nobody."""


SAVE: Final = (Step.HINT, Step.STAGE, Step.LOCK, Step.STAMP, Step.PUT, Step.COMMIT, Step.CLEAR)
# The hint of a delete hides what only S3 has, so it is written under the lock: a save that holds the lock may just be
# bringing the file home.
DELETE: Final = (Step.LOCK, Step.HINT, Step.DELETE, Step.UNLINK, Step.CLEAR)
# Backfill and repair are one operation, "make S3 equal to what the disk says now"; which of the two requests it
# sends (or none) depends on what it reads under the lock.
RECONCILE_PUT: Final = (Step.HINT, Step.LOCK, Step.READ, Step.PUT, Step.CLEAR)
RECONCILE_DELETE: Final = (Step.HINT, Step.LOCK, Step.READ, Step.DELETE, Step.CLEAR)
RECONCILE_NOTHING: Final = (Step.HINT, Step.LOCK, Step.READ, Step.CLEAR)
# Where S3 is the truth: the disk gets what S3 has, or a file that S3 lacks is moved aside.
RECONCILE_HOME: Final = (Step.HINT, Step.LOCK, Step.READ, Step.COMMIT, Step.CLEAR)
RECONCILE_QUARANTINE: Final = (Step.HINT, Step.LOCK, Step.READ, Step.UNLINK, Step.CLEAR)
# A file that only S3 has, in the phases where the disk is the truth: an overwrite finds it in the way (its first PUT
# is refused), brings it home, and goes on as any overwrite; a delete that may fail brings it home first.
SAVE_OVER_S3_ONLY: Final = (
    Step.HINT,
    Step.STAGE,
    Step.LOCK,
    Step.STAMP,
    Step.PUT,
    Step.COMMIT,
    Step.PUT,
    Step.COMMIT,
    Step.CLEAR,
)
DELETE_STRICT_S3_ONLY: Final = (Step.LOCK, Step.COMMIT, Step.HINT, Step.DELETE, Step.UNLINK, Step.CLEAR)
# Phases that write one side only.
SAVE_LOCAL: Final = (Step.STAGE, Step.STAMP, Step.COMMIT)
DELETE_LOCAL: Final = (Step.UNLINK,)
SAVE_S3: Final = (Step.STAGE, Step.STAMP, Step.PUT)
DELETE_S3: Final = (Step.DELETE,)
# `s3_writes="deferred"`: the hint stays behind for a repair.
SAVE_DEFERRED: Final = (Step.HINT, Step.STAGE, Step.LOCK, Step.STAMP, Step.COMMIT)
DELETE_DEFERRED: Final = (Step.LOCK, Step.HINT, Step.UNLINK)
