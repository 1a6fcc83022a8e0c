"""Read: S3 if it is certified to be what the disk has, else the disk."""

from __future__ import annotations

import errno
import io
import logging
import os
import time
from typing import BinaryIO

from django_dualstorage.core.objects import ObjectInfo
from django_dualstorage.core.phases import Policy, Reads
from django_dualstorage.core.stamp import Stamp
from django_dualstorage.engine.objectstore import Body
from django_dualstorage.exceptions import (
    JournalError,
    NotOnDiskError,
    S3Error,
    S3NotFoundError,
    UnmovableError,
)
from django_dualstorage.hints import HintRecord, Kind, is_remnant_by
from django_dualstorage.protocol.pair import Pair
from django_dualstorage.protocol.streams import CertifiedStream, S3Stream

logger = logging.getLogger("django_dualstorage.read")

#: How often the look at a file that only S3 has starts over because the disk changed meanwhile. Each round means that
#: somebody wrote in between, so a handful is plenty.
_LOOKS = 5


def open_raw(pair: Pair, policy: Policy, name: str) -> BinaryIO | io.RawIOBase:
    """The file of ``name``: a local file, or one of the raw streams of :mod:`django_dualstorage.protocol.streams`.

    Raises FileNotFoundError (NotOnDiskError, if S3 could not be asked), S3Error where S3 is the truth, and OSError
    as the disk gives it.
    """
    if policy.reads is Reads.S3:
        try:
            return _s3_stream(pair, name, pair.s3.get(name, patient=True))
        except UnmovableError:
            raise _absent(pair, name) from None
    if policy.reads is Reads.LOCAL:
        return pair.local.open(name)[0]
    for _ in range(_LOOKS):
        try:
            file, version = pair.local.open(name)
        except FileNotFoundError:
            try:
                body = _open_s3_only(pair, name)
            except FileNotFoundError:
                if not pair.local.exists(name):
                    raise
                continue  # it was brought home meanwhile, and what was asked of S3 came too late or too early
            if body is not None:
                pair.counters["read.s3-only"] += 1
                return _s3_stream(pair, name, body)
        else:
            return _certified_or_local(pair, policy, name, file, version)
    return pair.local.open(name)[0]


def stat_s3_only(pair: Pair, name: str) -> ObjectInfo | None:
    """What S3 says of a file that the disk lacks; None if it counts as absent, or has come to the disk meanwhile.

    Raises NotOnDiskError if S3 cannot be asked.
    """
    for _ in range(_LOOKS):
        began = time.monotonic()
        hints = pair.journal.hints_of(name)
        if _being_deleted(hints):
            return None
        try:
            info = pair.s3.head(name, patient=False)
        except UnmovableError:
            return None
        except S3Error as error:
            raise _unknown(pair, name, error) from error
        if info is None or pair.local.exists(name):
            return None
        remnant = _is_remnant(pair, name, info, hints)
        if time.monotonic() - began < pair.patience_of_a_look:
            return None if remnant else info
    return None


def _open_s3_only(pair: Pair, name: str) -> Body | None:
    """The object of a file that the disk lacks; None to start over.

    Raises FileNotFoundError if the name counts as absent, NotOnDiskError if S3 cannot be asked.
    """
    began = time.monotonic()
    hints = pair.journal.hints_of(name)
    if _being_deleted(hints):
        raise _absent(pair, name)
    try:
        body = pair.s3.get(name, patient=False)
    except (S3NotFoundError, UnmovableError):
        raise _absent(pair, name) from None
    except S3Error as error:
        raise _unknown(pair, name, error) from error
    # Between the first look and S3's answer a create or a delete may have come: what we hold may be the remains of
    # either. Only a second look can tell, and only while the hints of then have not been cleared for their age.
    try:
        if pair.local.exists(name):
            remnant, late = False, True
        else:
            remnant = _is_remnant(pair, name, body.info, hints)
            late = time.monotonic() - began >= pair.patience_of_a_look
    except BaseException:
        body.close()
        raise
    if not (remnant or late):
        return body
    body.close()
    if late:
        return None
    raise _absent(pair, name)


def _is_remnant(pair: Pair, name: str, info: ObjectInfo, before: list[HintRecord]) -> bool:
    """By the hints of now and those ``before`` the answer: a repair may have done its work in between, and then what
    we hold is what it has removed.
    """
    return is_remnant_by(before + pair.journal.hints_of(name), info)


def _being_deleted(hints: list[HintRecord]) -> bool:
    return any(hint.kind is Kind.DELETE for hint in hints)


def _certified_or_local(
    pair: Pair, policy: Policy, name: str, file: BinaryIO, version: Stamp
) -> BinaryIO | io.RawIOBase:
    if pair.s3.looks_dead or not _versions_are_unique(pair):
        pair.counters["read.local"] += 1
        return file
    try:
        body = pair.s3.get(name, patient=False)
    except S3NotFoundError:
        return _fallback(pair, policy, name, file, "absent")
    except (S3Error, UnmovableError) as error:
        logger.info("%s is read from the disk, because %s", name, error)
        return _fallback(pair, policy, name, file, "error")
    except BaseException:
        file.close()
        raise
    if body.info.stamp != version or body.info.size != version.size:
        body.close()
        return _fallback(pair, policy, name, file, "stale" if body.info.stamp else "unstamped")
    pair.counters["read.s3"] += 1

    def on_break() -> None:
        pair.counters["read.fallback.broken"] += 1
        logger.info("S3's answer for %s broke off; the disk goes on", name)

    return CertifiedStream(file, body, version.size, on_break)


def _versions_are_unique(pair: Pair) -> bool:
    """Whether a stamp can certify anything here. A journal that cannot be written is no reason not to read."""
    try:
        return pair.journal.keeps_nanoseconds
    except JournalError as error:
        logger.info("Reads stay on the disk: %s", error)
        return False


def _fallback(pair: Pair, policy: Policy, name: str, file: BinaryIO, why: str) -> BinaryIO:
    pair.counters[f"read.fallback.{why}"] += 1
    if pair.read_repair and why != "error":
        try:
            if not pair.journal.has_hint(name):
                pair.journal.announce(Kind.READ, name, phase=policy.phase.value).leave()
        except JournalError as error:
            logger.warning("%s is read, but not noted for repair: %s", name, error)
    return file


def _s3_stream(pair: Pair, name: str, body: Body) -> S3Stream:
    def reopen(start: int, etag: str) -> Body:
        return pair.s3.get(name, start=start, etag=etag, patient=True)

    return S3Stream(body, reopen)


def _absent(pair: Pair, name: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), pair.local.path(name))


def _unknown(pair: Pair, name: str, error: S3Error) -> NotOnDiskError:
    pair.counters["read.unknown"] += 1
    return NotOnDiskError(
        f"{name} is not on the disk, and S3 could not be asked whether only it has the file: {error}",
        code=error.code,
        status=error.status,
    )
