"""What the disk has that cannot, or perhaps should not, be moved: known before the first byte is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice

from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.core.preflight import fold_hash, look_at, twins
from django_dualstorage.core.report import FileResult
from django_dualstorage.core.selection import EVERYTHING, Selection
from django_dualstorage.engine.pool import Stop
from django_dualstorage.operations.spool import Seen, Spool
from django_dualstorage.sides.walk import Version, walk_versions
from django_dualstorage.storage import DualWriteStorage

_BATCH = 1000


def of_odd(odd: FileResult) -> Found:
    """What the walk could not take."""
    return Found(Difference(odd.outcome.value), odd.name, Side.DISK, odd.detail)


def find_twins(spool: Spool) -> None:
    """Twins among all names that the spool has seen, once it is indexed."""
    for group in spool.folds():
        spool.find(twins(group))


def survey(
    storage: DualWriteStorage, stop: Stop, *, prefix: str = "", selection: Selection = EVERYTHING
) -> Iterator[tuple[Difference, int, list[Found]]]:
    """Walk the tree and say of each kind how many there are, and the first three of them.

    Asks S3 for nothing. ``selection``'s names are read once. Nothing is said after ``stop``, for it would be of a part
    only. Memory is bounded; the names lie in a temporary file. Raises FileNotFoundError if MEDIA_ROOT is not there,
    SpoolError if there is no room, and what the names raise.
    """
    location = storage.pair.s3.configuration.location
    found = walk_versions(storage.root, prefix)
    with closing(Spool()) as spool:
        names = None if selection.names is None else iter(selection.names)
        while not stop and names is not None and (some := list(islice(names, _BATCH))):
            spool.refer((name, "", "", "") for name in some)
        spool.index()
        while not stop and (chunk := list(islice(found, _BATCH))):
            taken = [one for one in chunk if _takes(selection, one)]
            if names is not None:
                referenced = spool.referenced([one.name for one in taken])
                taken = [one for one in taken if isinstance(one, FileResult) or one.name in referenced]
            spool.find(_look(taken, location))
            spool.see(
                [
                    Seen(one.name, fold_hash(one.name), one.mtime_ns, False)
                    for one in taken
                    if not isinstance(one, FileResult)
                ],
                (),
            )
        if stop:
            return
        find_twins(spool)
        for kind in Difference:
            if spool.counts[kind]:
                yield kind, spool.counts[kind], list(spool.found(kind, 3))


def _takes(selection: Selection, one: Version | FileResult) -> bool:
    """Whether the rules and the age take it. What is no file has no version, so only the rules count for it."""
    if not isinstance(one, Version):
        return selection.takes_odd(one.name)
    since = selection.since_ns
    return (since is None or one.mtime_ns >= since) and selection.takes_name(one.name)


def _look(chunk: Iterable[Version | FileResult], location: str) -> Iterator[Found]:
    for one in chunk:
        if isinstance(one, FileResult):
            yield of_odd(one)
        else:
            yield from look_at(one.name, one.size, location)
