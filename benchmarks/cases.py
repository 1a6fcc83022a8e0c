"""Which storage is compared with which, and what it may cost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from benchmarks import calls
from benchmarks.measure import Call, Cost, compare
from benchmarks.site import Storages
from django_dualstorage.core.phases import Phase
from django_dualstorage.storage import DualWriteStorage
from tests.support.proxy import BlackHole, FaultProxy


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    call: str
    beside: str
    ours: Cost
    theirs: Cost
    #: Requests on the wire for one call; None where S3 has no part in it.
    requests: tuple[str, str] | None = None
    #: Ours may cost this share of theirs, in CPU and in wall time ...
    ratio_bar: float | None = None
    #: ... or so many seconds of wall time more.
    extra_bar: float | None = None

    @property
    def cpu_ratio(self) -> float:
        """Ours as a share of theirs."""
        return self.ours.cpu / self.theirs.cpu

    @property
    def wall_ratio(self) -> float:
        """Ours as a share of theirs."""
        return self.ours.wall / self.theirs.wall

    @property
    def passes(self) -> bool:
        """Whether it costs no more than it may."""
        if self.extra_bar is not None:
            return self.ours.wall - self.theirs.wall <= self.extra_bar
        assert self.ratio_bar is not None
        return max(self.cpu_ratio, self.wall_ratio) <= self.ratio_bar

    def as_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {
            "call": self.call,
            "beside": self.beside,
            "ours": self.ours.as_json(),
            "theirs": self.theirs.as_json(),
            "requests": None if self.requests is None else {"ours": self.requests[0], "theirs": self.requests[1]},
            "cpu_ratio": round(self.cpu_ratio, 3),
            "wall_ratio": round(self.wall_ratio, 3),
            "ratio_bar": self.ratio_bar,
            "extra_bar_ms": None if self.extra_bar is None else self.extra_bar * 1e3,
            "passes": self.passes,
        }


@dataclass(frozen=True)
class _AgainstS3:
    """Ours in phase ``dual`` beside S3Storage."""

    call: str
    make: Callable[[Any], Call]
    bar: float
    calls: int
    our_options: dict[str, Any] = field(default_factory=dict)
    their_options: dict[str, Any] = field(default_factory=dict)


_AGAINST_S3 = (
    _AgainstS3("save, a new name", calls.save_new, 0.6, 10, {}, {"file_overwrite": False}),
    _AgainstS3("save, overwriting", calls.save_over, 0.6, 10, {"allow_overwrite": True}, {"file_overwrite": True}),
    _AgainstS3("open and read", calls.open_and_read, 0.35, 10),
    _AgainstS3("url, signed", calls.url, 0.2, 300),
)


def against_s3(storages: Storages, server_url: str, rounds: int) -> Iterator[Result]:
    """Each call beside django-storages. Requests are counted apart: the counting proxy takes time of its own."""
    for case in _AGAINST_S3:
        with FaultProxy(server_url) as proxy:
            ours = storages.ours(Phase.DUAL, endpoint_url=proxy.endpoint_url, **case.our_options)
            theirs = storages.theirs(endpoint_url=proxy.endpoint_url, **case.their_options)
            requests = (_requests(proxy, case.make(ours)), _requests(proxy, case.make(theirs)))
        cost = compare(
            case.make(storages.ours(Phase.DUAL, **case.our_options)),
            case.make(storages.theirs(**case.their_options)),
            calls=case.calls,
            rounds=rounds,
        )
        yield Result(case.call, "S3Storage", *cost, requests, ratio_bar=case.bar)


def against_the_disk(storages: Storages, rounds: int) -> Iterator[Result]:
    """Where S3 has no part in a save, beside FileSystemStorage."""
    for call, ours in (
        ("save, phase filesystem", storages.ours(Phase.FILESYSTEM)),
        ("save, dual and deferred", storages.ours(Phase.DUAL, s3_writes="deferred")),
    ):
        cost = compare(calls.save_new(ours), calls.save_new(storages.local()), calls=50, rounds=rounds)
        yield Result(call, "FileSystemStorage", *cost, ratio_bar=1.5)


def with_s3_silent(storages: Storages, server_url: str, rounds: int) -> Iterator[Result]:
    """S3 takes everything in and never answers: what calls cost once the circuit breaker is open."""
    with FaultProxy(server_url) as proxy:
        ours = storages.ours(Phase.DUAL, endpoint_url=proxy.endpoint_url, connect_timeout=0.5, read_timeout=0.5)
        opened = calls.open_and_read(ours)
        proxy.fail(BlackHole(), times=None)
        _open_the_breaker(ours, opened)
        cost = compare(opened, calls.open_and_read(storages.local()), calls=50, rounds=rounds)
        yield Result("open and read, S3 silent", "FileSystemStorage", *cost, extra_bar=0.05)
        cost = compare(calls.save_new(ours), calls.save_new(storages.local()), calls=50, rounds=rounds)
        yield Result("save, S3 silent", "FileSystemStorage", *cost, extra_bar=0.05)


def _open_the_breaker(storage: DualWriteStorage, call: Call) -> None:
    deadline = time.monotonic() + 30
    while not storage.pair.s3.breaker.is_open:
        with contextlib.suppress(OSError):
            call()
        if time.monotonic() > deadline:
            raise AssertionError("the circuit breaker does not open")


def _requests(proxy: FaultProxy, call: Call) -> str:
    """The requests of one call, such as ``HEAD PUT``, once everything is warm."""
    call()
    proxy.clear()
    call()
    return " ".join(request.method for request in proxy.requests) or "none"
