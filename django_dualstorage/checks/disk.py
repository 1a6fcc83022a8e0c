"""MEDIA_ROOT: its own folder, with room for the journal and times to the nanosecond."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations

from django.conf import settings
from django.core.checks import CheckMessage

from django_dualstorage.checks.backends import Dual
from django_dualstorage.checks.messages import message
from django_dualstorage.exceptions import JournalError


def disk_problems(dual: Dual) -> Iterator[CheckMessage]:
    """What is wrong with the local side, unless the phase is pinned to one that leaves it alone."""
    if not dual.may_use_disk:
        return
    if not os.fspath(dual.storage.base_location):
        yield message(
            "dualstorage.E016",
            dual.where,
            "MEDIA_ROOT is empty, so uploads go to whatever folder the process was started in.",
            "Set MEDIA_ROOT, or location in OPTIONS, to the absolute path of the folder with the uploads.",
        )
        return
    yield from _static_root(dual)
    if not os.path.isdir(dual.storage.root):
        yield message(
            "dualstorage.W018",
            dual.where,
            f"MEDIA_ROOT {dual.storage.root} is not a folder that this process can see.",
            "If the files lie on a volume, mount it: an absent volume looks like a site without files. On a new site "
            "create the folder.",
        )
        return
    yield from _journal(dual)


def _static_root(dual: Dual) -> Iterator[CheckMessage]:
    static_root = settings.STATIC_ROOT
    if static_root and _nested(dual.storage.root, os.path.abspath(static_root)):
        yield message(
            "dualstorage.E017",
            dual.where,
            f"MEDIA_ROOT {dual.storage.root} and STATIC_ROOT {static_root} lie in each other.",
            "Give each a folder of its own. A backfill would upload the static files as if somebody had sent them, and "
            "collectstatic --clear would delete uploads.",
        )


def _journal(dual: Dual) -> Iterator[CheckMessage]:
    journal = dual.storage.pair.journal
    # The first to use the journal owns it, unless that is root: another user must not lock the site's own out.
    if not os.path.lexists(journal.root) and os.geteuid() not in (0, os.stat(dual.storage.root).st_uid):
        return
    try:
        if journal.keeps_nanoseconds:
            return
    except JournalError as error:
        yield message(
            "dualstorage.W020",
            dual.where,
            str(error),
            "Until then every save and delete fails in the phases that write both sides.",
        )
        return
    yield message(
        "dualstorage.W019",
        dual.where,
        f"The filesystem of MEDIA_ROOT {dual.storage.root} does not keep modification times to the nanosecond.",
        "Two versions of a file may look alike there. Move MEDIA_ROOT to ext4, XFS, Btrfs, ZFS or NFS 4 before the "
        "migration.",
    )


def shared_locations(duals: list[Dual]) -> list[CheckMessage]:
    """Two storages on one tree would each repair what the other has written."""
    local = [dual for dual in duals if dual.may_use_disk and os.fspath(dual.storage.base_location)]
    return [
        message(
            "dualstorage.E021",
            two.where,
            f"Its folder {two.storage.root} and that of {one.where}, {one.storage.root}, lie in each other.",
            "Give each storage a location of its own, or use one storage for both.",
        )
        for one, two in combinations(local, 2)
        if _nested(one.storage.root, two.storage.root)
    ]


def _nested(one: str, two: str) -> bool:
    one, two = os.path.realpath(one), os.path.realpath(two)
    return os.path.commonpath([one, two]) in (one, two)
