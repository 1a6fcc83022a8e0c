"""What is worth knowing of a file before it is moved, from its name and size alone."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.core.names import key_of, why_not_on_s3

#: Files that editors, browsers, file managers and uploads leave behind.
_TEMPORARY: Final = re.compile(
    r"(?:.*~|.*\.(?:tmp|temp|part|partial|crdownload|swp|swo|bak)|~\$.*|\.~lock\..*#|#.*#|\.nfs[0-9a-f]+"
    r"|Thumbs\.db|desktop\.ini|\.DS_Store|\._.*)",
    re.IGNORECASE | re.DOTALL,
)


def look_at(name: str, size: int, location: str = "") -> Iterator[Found]:
    """Everything that is worth knowing of one file. ``location`` is the prefix of the keys, ``size`` in bytes."""
    if why := why_not_on_s3(key_of(name, location)):
        yield Found(Difference.BAD_NAME, name, Side.DISK, why)
    basename = name.rpartition("/")[2]
    if _TEMPORARY.fullmatch(basename):
        yield Found(Difference.TEMPORARY, name, Side.DISK, "looks like a file that a program has left behind")
    elif name.startswith(".") or "/." in name:
        yield Found(Difference.HIDDEN, name, Side.DISK, "is hidden: a part of its name begins with a dot")
    if size == 0:
        yield Found(Difference.EMPTY, name, Side.DISK, "has no bytes")


def folded(name: str) -> str:
    """The same for names that a Mac or Windows takes for one: other case, or the same letters composed otherwise.

    "Canonical caseless matching", The Unicode Standard, section 3.13.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def fold_hash(name: str) -> int:
    """64 bits of :func:`folded`, signed, so that a million names take eight bytes each."""
    return int.from_bytes(
        blake2b(folded(name).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
    )


def twins(names: Iterable[str]) -> Iterator[Found]:
    """The twins among a few names that may be such, as those of one hash are: one finding for each name but the first.

    NFC and NFD, where the letters are the same; case, where only that differs.
    """
    first: dict[str, str] = {}
    composed: dict[str, str] = {}
    for name in sorted(names):
        fold = folded(name)
        nfc = unicodedata.normalize("NFC", name)
        if nfc in composed:
            yield Found(
                Difference.NFC_TWIN,
                name,
                Side.DISK,
                f"is written like {composed[nfc]!r}, with letters composed otherwise",
            )
        elif fold in first:
            yield Found(Difference.CASE_TWIN, name, Side.DISK, f"differs from {first[fold]!r} in its case only")
        composed.setdefault(nfc, name)
        first.setdefault(fold, name)
