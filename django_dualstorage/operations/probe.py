"""Find out by experiment what the S3 server does with conditional requests."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from django_dualstorage.core.names import JOURNAL_DIR, key_of
from django_dualstorage.engine.objectstore import ALWAYS, Condition, ObjectStore, Source, unnoted
from django_dualstorage.exceptions import S3Error, S3PreconditionError, S3TransientError
from django_dualstorage.protocol.pair import Pair

_WRONG_ETAG = '"00000000000000000000000000000000"'


def probe(pair: Pair) -> bool:
    """Whether the server refuses what it must refuse, as :func:`honours_conditions` finds.

    What was found is kept in the journal, so that every process on this volume knows. Raises S3Error if the server
    cannot be used at all, JournalError.
    """
    honours = honours_conditions(pair)
    known = pair.journal.read_capabilities()
    known[pair.s3.identity] = {
        "conditions": honours,
        "probed": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    pair.journal.write_capabilities(known)
    return honours


def honours_conditions(pair: Pair) -> bool:
    """Whether the server refuses what it must refuse: a create over an object, a replace of another version.

    Writes one small object under a random key and removes it; leaves no trace on the disk. Raises S3Error.
    """
    key = key_of(f"{JOURNAL_DIR}/probe-{secrets.token_hex(8)}", pair.s3.configuration.location)
    try:
        return _honours_conditions(pair.s3.store, key)
    except S3Error as error:
        # Nobody has a file of that name.
        message = str(error).replace(key, "a small object, written to try S3 out")
        raise type(error)(
            message, code=error.code, status=error.status, sent=error.sent, retried=error.retried
        ) from error


def _honours_conditions(store: ObjectStore, key: str) -> bool:
    with _small_source() as source:
        store.put(key, source, {}, sending=unnoted)
        try:
            return _refuses(store, key, source, Condition(absent=True)) and _refuses(
                store, key, source, Condition(etag=_WRONG_ETAG)
            )
        finally:
            store.delete(key, ALWAYS, sending=unnoted)


def _refuses(store: ObjectStore, key: str, source: Source, condition: Condition) -> bool:
    try:
        store.put(key, source, {}, condition, sending=unnoted)
    except S3PreconditionError:
        return True
    except S3TransientError:
        raise  # a bad moment, which says nothing about the header
    except S3Error:
        return False  # an error of another kind: it does not know the header
    return False


@contextmanager
def _small_source() -> Iterator[Source]:
    with tempfile.TemporaryFile() as file:
        os.write(file.fileno(), b"django-dualstorage probe")
        yield Source(file.fileno(), os.fstat(file.fileno()).st_size)
