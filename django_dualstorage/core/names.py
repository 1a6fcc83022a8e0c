"""Names of files: which are ours, which S3 cannot take."""

from __future__ import annotations

import re
from typing import Final

#: The journal's folder at the top of MEDIA_ROOT.
JOURNAL_DIR: Final = ".dualstorage"
#: A file that is being written; it lies beside its final name so that a link or rename is atomic and the folder's
#: group and default ACL apply to it.
_STAGED_PREFIX: Final = "."
_STAGED_SUFFIX: Final = ".dualstorage-tmp"

#: "Creating object key names", Amazon S3 User Guide: at most 1,024 bytes of UTF-8. SeaweedFS takes 1,023.
MAX_KEY_BYTES: Final = 1023

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_XML: Final = re.compile("[\ufffe\uffff]")


def staged_name(op_id: str, purpose: str = "") -> str:
    """The file name under which operation ``op_id`` writes before it commits."""
    return f"{_STAGED_PREFIX}{op_id}{purpose}{_STAGED_SUFFIX}"


def is_staged(basename: str) -> bool:
    """Whether a file name is that of a file being written."""
    return basename.startswith(_STAGED_PREFIX) and basename.endswith(_STAGED_SUFFIX)


def is_reserved(name: str) -> bool:
    """Whether a name relative to MEDIA_ROOT belongs to this package and must never be shown, copied or served."""
    return name == JOURNAL_DIR or name.startswith(JOURNAL_DIR + "/") or is_staged(name.rsplit("/", 1)[-1])


def key_of(name: str, prefix: str) -> str:
    """The object key of a name relative to MEDIA_ROOT, below the S3 ``location`` ``prefix``."""
    prefix = prefix.strip("/")
    return f"{prefix}/{name}" if prefix else name


def name_of(key: str, prefix: str) -> str | None:
    """The name whose key this is, or None for a key outside ``prefix``, a folder marker, or a name no disk can hold."""
    prefix = prefix.strip("/")
    if prefix:
        if not key.startswith(prefix + "/"):
            return None
        key = key[len(prefix) + 1 :]
    if not key or key.endswith("/") or "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
        return None
    return key


def why_not_on_s3(key: str) -> str | None:
    """Why S3 or a server compatible with it refuses or changes this key; None if all take it as it is.

    "Creating object key names", Amazon S3 User Guide; what the compatible servers do with it was seen by experiment.
    Names are never normalised: NFC and NFD are two keys, as they are two files.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > MAX_KEY_BYTES:
        return f"is {size} bytes long as a key; S3 takes {MAX_KEY_BYTES}"
    if _CONTROL.search(key):
        return "has a control character"
    if _NOT_XML.search(key):
        return "has a character that XML cannot carry, so a listing of the bucket would fail"
    if "\\" in key:
        return "has a backslash, which Django and some servers read as a folder separator"
    if any(part in {"", ".", ".."} for part in key.split("/")):
        return "has an empty, '.' or '..' part"
    return None
