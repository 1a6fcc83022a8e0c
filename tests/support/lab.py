"""One MEDIA_ROOT and one bucket prefix with a breakable wire between, and storages on them in any phase.

Kept for a whole module: a client costs more than most tests. Each test takes names of its own and leaves the two sides
equal.
"""

from __future__ import annotations

import itertools
import os
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_dualstorage.storage import DualWriteStorage
from tests.support.proxy import BlackHole, Fault, FaultProxy, HeldAndLate, LostAnswer, Refused, Slow, Status, Truncated
from tests.support.seaweed import SeaweedServer

#: Far longer than any answer that does come takes, on any machine.
PATIENT = 30.0
#: For a wire that is known to be silent.
IMPATIENT = 0.2


@dataclass(frozen=True)
class Broken:
    """A fault of the wire and what it means to a write."""

    fault: Fault
    #: The caller's client gets no clean answer.
    unclean: bool = True
    #: The server does what it was asked, at once ...
    applied: bool = False
    #: ... or later.
    late: bool = False
    patience: float = PATIENT


WRITE_FAULTS = {
    "503": Broken(Status(503)),
    "403": Broken(Status(403)),
    "refused": Broken(Refused()),
    "lost": Broken(LostAnswer(), applied=True),
    "late": Broken(HeldAndLate(), late=True),
    "silent-then-late": Broken(HeldAndLate(hang=True), late=True, patience=IMPATIENT),
    "black-hole": Broken(BlackHole(), patience=IMPATIENT),
    "truncated": Broken(Truncated(), unclean=False, applied=True),
    "slow": Broken(Slow(delay=0.05), unclean=False, applied=True),
}


class Lab:
    """Makes storages, each configuration once."""

    def __init__(self, seaweed: SeaweedServer, bucket: str, root: Path, wire: FaultProxy | None = None) -> None:
        self._wire = wire
        self.root = root
        self._names = itertools.count()
        self._storages: dict[tuple[object, ...], DualWriteStorage] = {}
        self._s3 = {
            "bucket_name": bucket,
            "location": f"t-{uuid.uuid4().hex[:12]}",
            "endpoint_url": (wire or seaweed).endpoint_url,
            "access_key": seaweed.access_key,
            "secret_key": seaweed.secret_key,
            "region_name": "us-east-1",
        }

    @property
    def wire(self) -> FaultProxy:
        """The breakable wire."""
        assert self._wire is not None, "this one has none"
        return self._wire

    def name(self) -> str:
        """A name that no other test has."""
        return f"{next(self._names)}/a.txt"

    def storage(self, phase: str, *, patience: float = PATIENT, **options: Any) -> DualWriteStorage:
        """A storage whose breaker never opens unless told otherwise."""
        wanted = {
            "provider": "seaweedfs",
            "connect_timeout": PATIENT,
            "read_timeout": patience,
            "breaker_failures": 1_000_000,
            **options,
        }
        known = (phase, *sorted(wanted.items()))
        if known not in self._storages:
            self._storages[known] = DualWriteStorage(self.root, "/media/", phase=phase, s3=self._s3, **wanted)
        return self._storages[known]


@contextmanager
def idle_child() -> Iterator[None]:
    """While the block lasts there is a forked child, which has every file that is open now and does nothing."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which the child does not need
        child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        yield
    finally:
        os.close(writer)
        os.waitpid(child, 0)


def seen(storage: DualWriteStorage, name: str) -> bytes | None:
    """What a reader gets; None if it is told that there is no such file. The other questions must agree."""
    try:
        with storage.open(name) as file:
            content: bytes = file.read()
    except FileNotFoundError:
        assert not storage.exists(name)
        return None
    assert storage.exists(name)
    assert storage.size(name) == len(content)
    return content
