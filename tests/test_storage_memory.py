"""Files of any size pass through in pieces. The size is larger with DUALSTORAGE_LONG=1."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import client_of, head_object, key
from tests.support.fork import run_in_child

MIB = 1024 * 1024
SIZE = (1024 if os.environ.get("DUALSTORAGE_LONG") else 128) * MIB
MOST = 64 * MIB
PIECE = os.urandom(MIB)


class Big:
    """Content that is nowhere whole."""

    name = "big.bin"

    def chunks(self) -> Iterator[bytes]:
        for number in range(SIZE // MIB):
            yield number.to_bytes(8, "big") + PIECE[8:]


def peak() -> int:
    """The most memory that this process has had. Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    """A child begins with its parent's peak."""
    Path("/proc/self/clear_refs").write_text("5")


def growth(work: Any) -> Any:
    """What ``work`` returns in a child, and by how many bytes its memory grew."""

    def measured() -> tuple[Any, int]:
        reset_peak()
        before = peak()
        return work(), peak() - before

    return run_in_child(measured, timeout=240).unwrap()


def digest_of(storage: DualWriteStorage, name: str) -> str:
    digest = hashlib.sha256()
    with storage.open(name) as file:
        for chunk in file.chunks(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def expected() -> str:
    digest = hashlib.sha256()
    for chunk in Big().chunks():
        digest.update(chunk)
    return digest.hexdigest()


def test_the_measure_measures() -> None:
    # Four times as much, for a child that is forked late in a run has free memory of its parent's to use up first.
    length, grown = growth(lambda: len(bytearray(4 * MOST)))
    assert length == 4 * MOST
    assert grown >= MOST


@pytest.mark.parametrize("phase", ["dual", "s3"])
def test_a_big_file_is_saved_and_read_in_pieces(make_storage: MakeStorage, media_root: Path, phase: str) -> None:
    if shutil.disk_usage(media_root).free < 4 * SIZE:
        pytest.skip("no room for it")
    storage = make_storage(phase, read_timeout=60)
    content: Any = Big()
    name, grown = growth(lambda: storage.save("big.bin", content))
    assert grown < MOST
    found = head_object(storage, name)
    assert found["ContentLength"] == SIZE
    assert found["ETag"].strip('"').rpartition("-")[2] == str(SIZE // (8 * MIB))  # in parts
    digest, grown = growth(lambda: digest_of(storage, name))
    assert digest == expected()
    assert grown < MOST
    if phase == "dual":
        status = os.stat(storage.path(name))
        assert found["Metadata"]["ds-stamp"] == f"{SIZE}:{status.st_mtime_ns}"
        client, bucket = client_of(storage)
        digest_there = hashlib.sha256()
        for chunk in client.get_object(Bucket=bucket, Key=key(storage, name))["Body"].iter_chunks(MIB):
            digest_there.update(chunk)
        assert digest_there.hexdigest() == digest
    storage.delete(name)
