"""What a verification can find, by kind, and who is at fault where the bytes differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from django_dualstorage.core.compare import Action, is_remnant, reconcile_action
from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.stamp import Stamp


class Side(str, Enum):
    """On which side it has to be mended."""

    DISK = "disk"
    S3 = "s3"
    DATABASE = "database"
    #: Nobody can tell from here.
    UNKNOWN = "unknown"

    def __str__(self) -> str:
        return self.value


class Difference(str, Enum):
    """One kind of finding. The value is the word in reports, in ``--json`` and in the database; never renamed."""

    # Between the disk and S3.
    MISSING_ON_S3 = "missing-on-s3"
    MISSING_LOCALLY = "missing-locally"  # a file that only S3 has
    DIFFERS = "differs"  # S3 has another version, by its stamp or its size
    BYTES_DIFFER = "bytes-differ"  # the same version by its stamp, other bytes: found by reading only
    UNSTAMPED = "unstamped"  # of the right size, but nobody has certified it
    EXTRA_ON_S3 = "extra-on-s3"  # what operations on a file that is gone have left there
    HINT_PENDING = "hint-pending"  # an operation has ended without being known to have reached both sides
    # Of S3 alone.
    PUBLIC = "public"  # anybody can read it, though the site does not say so
    # Between the database and the files.
    ROW_WITHOUT_FILE = "row-without-file"
    FILE_WITHOUT_ROW = "file-without-row"
    # Of the disk alone: see preflight.
    BAD_NAME = "bad-name"
    SYMLINK = "symlink"
    SPECIAL = "special"
    UNREADABLE = "unreadable"
    NFC_TWIN = "nfc-twin"
    CASE_TWIN = "case-twin"
    HIDDEN = "hidden"
    TEMPORARY = "temporary"
    EMPTY = "empty"
    # Of this run.
    FAILED = "failed"  # could not be looked at

    def __str__(self) -> str:
        return self.value

    @property
    def is_problem(self) -> bool:
        """Whether it has to be mended, so that the command exits with 1. The others are worth knowing."""
        return self not in _NOTICES


_NOTICES: Final = frozenset(
    {
        Difference.FILE_WITHOUT_ROW,
        Difference.NFC_TWIN,
        Difference.CASE_TWIN,
        Difference.HIDDEN,
        Difference.TEMPORARY,
        Difference.EMPTY,
    }
)
#: What backfill and repair make go away by themselves.
MENDED_BY_FIX: Final = frozenset(
    {
        Difference.MISSING_ON_S3,
        Difference.DIFFERS,
        Difference.UNSTAMPED,
        Difference.EXTRA_ON_S3,
        Difference.HINT_PENDING,
    }
)

#: What to type next, for each kind.
NEXT: Final[dict[Difference, str]] = {
    Difference.MISSING_ON_S3: "manage.py dualstorage_backfill",
    Difference.MISSING_LOCALLY: "manage.py dualstorage_backfill --reverse, or remove the objects if nobody wants them",
    Difference.DIFFERS: "manage.py dualstorage_backfill",
    Difference.BYTES_DIFFER: "look at both copies; to take the disk's, `touch` the file, which makes it a new version, "
    "and run manage.py dualstorage_backfill; to take S3's, save it through the site",
    Difference.UNSTAMPED: "manage.py dualstorage_backfill",
    Difference.EXTRA_ON_S3: "manage.py dualstorage_repair",
    Difference.HINT_PENDING: "manage.py dualstorage_repair",
    Difference.PUBLIC: "take away the public ACL or bucket policy, or say that the bucket is public "
    "(AWS_QUERYSTRING_AUTH = False or AWS_DEFAULT_ACL = 'public-read')",
    Difference.ROW_WITHOUT_FILE: "bring the file back from a backup, or empty the field of that row",
    Difference.FILE_WITHOUT_ROW: "nothing, if code uses them by name; else see whether they may go",
    Difference.BAD_NAME: "rename the files and their rows",
    Difference.SYMLINK: "put what the links lead to in their place (a bind mount will do), or remove them; "
    "manage.py dualstorage_backfill --exclude leaves them out",
    Difference.SPECIAL: "remove them: they are no files",
    Difference.UNREADABLE: "give the site's user read permission",
    Difference.NFC_TWIN: "nothing on Linux and S3; rename one of each before the files go to a Mac",
    Difference.CASE_TWIN: "nothing on Linux and S3; rename one of each before the files go to Windows or a Mac",
    Difference.HIDDEN: "remove them, if nobody needs them: they are copied like any other file",
    Difference.TEMPORARY: "remove them, if nobody needs them: they are copied like any other file",
    Difference.EMPTY: "see whether an upload went wrong: they are copied like any other file",
    Difference.FAILED: "see the errors, then manage.py dualstorage_verify once more",
}


class Found(NamedTuple):
    """One finding."""

    kind: Difference
    #: Relative to MEDIA_ROOT.
    name: str
    side: Side
    #: What happened.
    detail: str = ""


def classify(
    name: str,
    local: Stamp | None,
    remote: ObjectInfo | None,
    *,
    local_truth: bool,
    hinted: bool = False,
    deleted: bool = False,
    own_ops: Collection[str] = (),
) -> Found | None:
    """What is wrong with a name of which both sides were seen under its lock; None if nothing is.

    ``hinted``: an operation on it has ended and its hint is still there; ``deleted`` and ``own_ops`` are as for
    :func:`~django_dualstorage.core.compare.reconcile_action`.
    """
    if local is None and remote is not None:
        if local_truth and is_remnant(remote, deleted=deleted, own_ops=own_ops):
            why = "the file was deleted" if deleted else "the operation that wrote it never ended"
            return Found(Difference.EXTRA_ON_S3, name, Side.S3, f"{why}, and the object is still there")
        if not hinted:
            return Found(Difference.MISSING_LOCALLY, name, Side.DISK, f"only S3 has it, {remote.size:,} bytes")
    if hinted:
        return Found(
            Difference.HINT_PENDING, name, Side.UNKNOWN, "an operation ended without an answer from both sides"
        )
    if local is None:
        return None
    if remote is None:
        side = Side.S3 if local_truth else Side.DISK
        return Found(Difference.MISSING_ON_S3, name, side, f"only the disk has it, {local.size:,} bytes")
    action = reconcile_action(local, remote)
    if action is Action.NOTHING:
        return None
    side = Side.S3 if local_truth else Side.DISK
    if action is Action.ADOPT:
        return Found(Difference.UNSTAMPED, name, Side.S3, f"has the same size, {local.size:,} bytes, and no stamp")
    if remote.stamp == local:
        return Found(
            Difference.DIFFERS, name, Side.S3, f"is {remote.size:,} bytes on S3, where its stamp says {local.size:,}"
        )
    if remote.size != local.size:
        return Found(Difference.DIFFERS, name, side, f"is {local.size:,} bytes on the disk and {remote.size:,} on S3")
    return Found(Difference.DIFFERS, name, side, "was written at another time than S3's copy says")


@dataclass(frozen=True)
class Evidence:
    """What is known of two copies that say that they are one version and have different bytes."""

    #: The object's ETag as S3 tells it.
    etag: str
    #: What the ETag would be, computed over either side's bytes; None where its rule is not known.
    of_disk: str | None
    of_s3: str | None


def at_fault(evidence: Evidence) -> tuple[Side, str]:
    """Which side has other bytes than it had, and why that is believed.

    A stamp has no checksum of the bytes; an ETag is one, of what S3 took. That the inventory has certified the ETag
    proves nothing: whoever rewrites an object and keeps its stamp is certified by the next command that looks.
    """
    if evidence.of_disk is None or evidence.of_s3 is None:
        return Side.UNKNOWN, "both unknown: the ETag of the object is no checksum that can be computed from the bytes"
    if evidence.of_disk == evidence.etag:
        return Side.S3, "the disk is right: its bytes are those of which S3 took the ETag, and S3 gives out others"
    if evidence.of_s3 != evidence.etag:
        return Side.UNKNOWN, "both unknown: the object's ETag fits neither the disk's bytes nor S3's"
    return (
        Side.UNKNOWN,
        "both unknown: the file has changed without its time, or somebody has written the object and kept its stamp",
    )
