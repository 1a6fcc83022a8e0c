"""The circuit breaker: a silent S3 costs a few requests and then none, until a background question is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from django.core.files.base import ContentFile

from django_dualstorage.engine.breaker import CircuitBreaker
from django_dualstorage.exceptions import NotOnDiskError, S3Error, S3UnavailableError
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import assert_sides_equal, put_object, repaired
from tests.support.lab import seen
from tests.support.proxy import BlackHole, FaultProxy, Refused, Status

DEADLINE = 60.0


def wait_until(what: object) -> None:
    """Until ``what()`` is true; the deadline only ends a test that fails anyway."""
    assert callable(what)
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


class Probe:
    """Answers as told, and counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.allowed = threading.Semaphore(0)
        self.answer = False

    def __call__(self) -> bool:
        self.allowed.acquire()
        self.asked += 1
        return self.answer


@pytest.fixture
def probe() -> Iterator[Probe]:
    probe = Probe()
    yield probe
    probe.answer = True
    probe.allowed.release()


def test_opens_after_failures_in_a_row_only(probe: Probe) -> None:
    before = set(threading.enumerate())
    breaker = CircuitBreaker(probe, failures=3, interval=0)
    for _ in range(3):
        breaker.failed()
        breaker.failed()
        assert not breaker.is_open
        breaker.succeeded()
    breaker.failed()
    breaker.failed()
    breaker.failed()
    assert breaker.is_open
    breaker.failed()  # that of a request that was under way
    assert breaker.openings == 1
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["dualstorage-breaker"]


def test_asks_until_s3_answers_and_then_counts_anew(probe: Probe) -> None:
    breaker = CircuitBreaker(probe, failures=1, interval=0)
    breaker.failed()
    probe.allowed.release()
    probe.allowed.release()
    wait_until(lambda: probe.asked == 2)
    assert breaker.is_open
    probe.answer = True
    probe.allowed.release()
    wait_until(lambda: not breaker.is_open)
    probe.answer = False
    breaker.failed()
    assert breaker.is_open
    assert breaker.openings == 2


def stored(make_proxied: MakeStorage, phase: str = "dual", *, interval: float = 0.01) -> DualWriteStorage:
    make_proxied("dual", read_timeout=30).save("a.txt", ContentFile(b"old"))
    return make_proxied(
        phase, breaker_failures=3, breaker_interval=interval, read_timeout=0.2, connect_timeout=30, allow_overwrite=True
    )


def test_open_breaker_sends_nothing_for_anybody(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = stored(make_proxied, interval=3600)
    put_object(storage, "only.txt", b"only here")
    proxy.fail(BlackHole(), times=None)
    for _ in range(3):
        assert seen(storage, "a.txt") == b"old"
    assert storage.pair.s3.breaker.is_open
    proxy.clear()
    assert seen(storage, "a.txt") == b"old"
    storage.save("a.txt", ContentFile(b"new"))
    storage.save("b.txt", ContentFile(b"new"))
    assert seen(storage, "a.txt") == b"new"
    storage.delete("b.txt")
    assert seen(storage, "b.txt") is None
    assert storage.exists("only.txt") is False
    with pytest.raises(NotOnDiskError, match="left alone"):
        storage.open("only.txt")
    assert storage.listdir("") == ([], ["a.txt"])
    assert proxy.count() == 0
    assert storage.pair.journal.count() == 3
    proxy.clear_faults()
    repaired(storage)  # a repair asks all the same
    assert seen(storage, "a.txt") == b"new"


def test_breaker_closes_when_s3_is_back(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = stored(make_proxied)
    proxy.fail(BlackHole(), times=None)
    for _ in range(3):
        assert seen(storage, "a.txt") == b"old"
    assert storage.pair.s3.breaker.is_open
    wait_until(lambda: proxy.count("GET", "breaker-probe") >= 2)
    assert storage.pair.s3.breaker.is_open
    proxy.clear_faults()
    wait_until(lambda: not storage.pair.s3.breaker.is_open)
    storage.pair.counters.clear()
    assert seen(storage, "a.txt") == b"old"
    assert storage.pair.counters == {"read.s3": 1}
    storage.save("a.txt", ContentFile(b"new"))
    repaired(storage)
    assert_sides_equal(storage)


def test_refusal_is_an_answer_and_does_not_open_it(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = stored(make_proxied)
    proxy.fail(Status(403), times=None)
    for _ in range(5):
        assert seen(storage, "a.txt") == b"old"
    assert not storage.pair.s3.breaker.is_open


def test_refusal_closes_it(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = stored(make_proxied, interval=0.01)
    refused = proxy.fail(Refused(), method="GET", key="a.txt", times=None)
    proxy.fail(Status(403), method="GET", key="breaker-probe", times=None)
    for _ in range(3):
        assert seen(storage, "a.txt") == b"old"
    assert refused.hits == 3
    wait_until(lambda: not storage.pair.s3.breaker.is_open)


def test_phases_that_raise_ask_all_the_same(make_proxied: MakeStorage, proxy: FaultProxy) -> None:
    storage = stored(make_proxied, "dual-strict", interval=3600)
    proxy.fail(Status(503), times=None)
    for _ in range(3):
        with pytest.raises(S3Error):
            storage.save("a.txt", ContentFile(b"new"))
    assert storage.pair.s3.breaker.is_open
    with pytest.raises(S3Error) as failure:
        storage.delete("a.txt")
    assert not isinstance(failure.value, S3UnavailableError)
    proxy.clear_faults()
    storage.save("a.txt", ContentFile(b"new"))
    assert seen(storage, "a.txt") == b"new"
