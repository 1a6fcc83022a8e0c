"""What must hold when everything has settled, asked of the disk and the server, not of the code under test."""

from __future__ import annotations

import functools
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_dualstorage.core.names import JOURNAL_DIR, is_staged
from django_dualstorage.core.report import FileResult, Report
from django_dualstorage.core.stamp import STAMP_KEY
from django_dualstorage.engine.pool import Stop
from django_dualstorage.hints import Kind
from django_dualstorage.operations.repair import repair
from django_dualstorage.storage import DualWriteStorage
from tests.support.endpoint import s3_client


@dataclass(frozen=True)
class Version:
    """One file on one side."""

    content: bytes
    stamp: str | None


@functools.lru_cache(maxsize=64)
def _client(endpoint_url: str, access_key: str, secret_key: str, pid: int) -> Any:
    return s3_client(endpoint_url, access_key, secret_key)


def client_of(storage: DualWriteStorage) -> tuple[Any, str]:
    """A plain boto3 client for the storage's bucket, and the bucket."""
    configuration: Any = storage.pair.s3.configuration
    return (
        _client(configuration.endpoint_url, configuration.access_key, configuration.secret_key, os.getpid()),
        configuration.bucket_name,
    )


def key(storage: DualWriteStorage, name: str) -> str:
    """The object key of ``name``."""
    location = storage.pair.s3.configuration.location
    return f"{location}/{name}" if location else name


def on_disk(storage: DualWriteStorage, prefix: str = "") -> dict[str, Version]:
    """The regular files below MEDIA_ROOT, those being written included; without the journal."""
    found: dict[str, Version] = {}
    for folder, folders, files in os.walk(storage.location):
        if folder == storage.location and JOURNAL_DIR in folders:
            folders.remove(JOURNAL_DIR)
        for basename in files:
            path = Path(folder, basename)
            status = path.lstat()
            name = path.relative_to(storage.location).as_posix()
            beside = is_staged(basename) and name.startswith(os.path.dirname(prefix))
            if stat.S_ISREG(status.st_mode) and (name.startswith(prefix) or beside):
                found[name] = Version(path.read_bytes(), f"{status.st_size}:{status.st_mtime_ns}")
    return found


def on_s3(storage: DualWriteStorage, prefix: str = "") -> dict[str, Version]:
    """The objects of the storage, by name."""
    client, bucket = client_of(storage)
    start = key(storage, "")
    found: dict[str, Version] = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key(storage, prefix)):
        for entry in page.get("Contents", ()):
            answer = client.get_object(Bucket=bucket, Key=entry["Key"])
            found[entry["Key"][len(start) :]] = Version(answer["Body"].read(), answer["Metadata"].get(STAMP_KEY))
    return found


def put_object(storage: DualWriteStorage, name: str, content: bytes, **parameters: Any) -> None:
    """Write an object as other tools do: without a stamp."""
    client, bucket = client_of(storage)
    client.put_object(Bucket=bucket, Key=key(storage, name), Body=content, **parameters)


def head_object(storage: DualWriteStorage, name: str) -> dict[str, Any]:
    """What the server says of the object."""
    client, bucket = client_of(storage)
    answer: dict[str, Any] = client.head_object(Bucket=bucket, Key=key(storage, name))
    return answer


def assert_sides_equal(storage: DualWriteStorage, prefix: str = "") -> None:
    """Both sides have the same names, bytes and versions; no hints and no half-written files are left."""
    local = on_disk(storage, prefix)
    staged = [name for name in local if is_staged(name.rpartition("/")[2])]
    assert not staged, f"half-written files are left: {staged}"
    remote = on_s3(storage, prefix)
    assert sorted(local) == sorted(remote), "the sides have different names"
    differing = {name: (local[name], remote[name]) for name in local if local[name] != remote[name]}
    assert not differing, "the sides differ"
    assert not storage.pair.journal.count(), "hints are left"


def never_stop() -> Stop:
    """For runs that nobody interrupts."""
    return Stop(lambda message: None)


def ignore(result: FileResult) -> None:
    """For runs to whose progress nobody listens."""


def repaired(
    storage: DualWriteStorage,
    *,
    grace_over: bool = True,
    force: bool = False,
    clock: Callable[[], float] = time.time,
) -> Report:
    """Repair once; by default as if the grace period of every hint were over."""
    pair = storage.pair
    before, pair.grace = pair.grace, 0.0 if grace_over else pair.grace
    try:
        return repair(storage, never_stop(), ignore, workers=2, force=force, clock=clock)
    finally:
        pair.grace = before


def hint(storage: DualWriteStorage, name: str, kind: Kind = Kind.SAVE) -> str:
    """A hint that an ended operation has left; the operation's id."""
    left = storage.pair.journal.announce(kind, name, phase="dual")
    left.leave()
    return left.record.op_id
