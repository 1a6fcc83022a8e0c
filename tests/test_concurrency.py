"""More requests at once while that helps, fewer when the server says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.engine.concurrency import Controller, Gate
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3TransientError


def run(controller: Controller, throughput: Callable[[int], float], seconds: float, start: float = 0.0) -> list[int]:
    """The limits that a server of that many requests per second, by those in flight, brings about."""
    now, limits = start, []
    while now < start + seconds:
        now += 1 / throughput(controller.limit)
        controller.finished(1000, now)
        limits.append(controller.limit)
    return limits


def test_it_grows_while_that_helps() -> None:
    """A server far away: every request takes 50 ms, however many there are."""
    assert run(Controller(64), lambda limit: limit / 0.05, 20)[-1] >= 60


def test_it_does_not_grow_where_nothing_is_gained() -> None:
    """A server that does 400 requests a second, for which 16 in flight are enough."""
    limits = run(Controller(64), lambda limit: min(limit, 16) / 0.04, 60)
    settled = sorted(limits[len(limits) // 2 :])
    assert 10 <= settled[len(settled) // 2] <= 24


def test_a_server_that_crowds_slow_down_gets_fewer() -> None:
    limits = run(Controller(64), lambda limit: min(limit, 8) / 0.02 / max(1, limit / 8) ** 2, 60)
    settled = sorted(limits[len(limits) // 2 :])
    assert settled[len(settled) // 2] <= 12


def test_it_halves_once_for_requests_that_were_refused_together() -> None:
    controller = Controller(64, start=32)
    for _ in range(32):
        controller.refused(10.0)
    assert controller.limit == 16
    controller.refused(12.0)
    assert controller.limit == 8


def test_it_is_cautious_after_a_refusal() -> None:
    controller = Controller(64, start=16)
    controller.refused(0.0)
    assert max(run(controller, lambda limit: limit / 0.05, 4)) == 8
    assert run(controller, lambda limit: limit / 0.05, 30, 4)[-1] > 16


@given(
    st.integers(1, 100),
    st.integers(1, 10),
    st.lists(st.tuples(st.booleans(), st.integers(0, 10**9), st.floats(0, 2)), max_size=200),
)
def test_it_stays_between_its_bounds(maximum: int, minimum: int, events: list[tuple[bool, int, float]]) -> None:
    controller, now = Controller(maximum, minimum=minimum), 0.0
    for refused, size, pause in events:
        now += pause
        if refused:
            controller.refused(now)
        else:
            controller.finished(size, now)
        assert minimum <= controller.limit <= max(minimum, maximum)


def test_the_gate_lets_in_as_many_as_it_may() -> None:
    gate = Gate(Controller(3, start=3))
    inside, most = 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with gate.passing(1):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert most == 3


@pytest.mark.parametrize(
    ("error", "limit"),
    [
        (S3TransientError("slow", status=503, code="SlowDown"), 4),
        (S3TransientError("slow", status=429), 4),
        (S3TransientError("silent", code="Timeout"), 4),
        (S3TransientError("broken", status=500), 8),
        (S3Error("no", status=403), 8),
        (S3NotFoundError("none", status=404), 8),
        (ValueError("a mistake"), 8),
    ],
)
def test_the_gate_hears_what_the_server_says(error: Exception, limit: int) -> None:
    gate = Gate(Controller(64, start=8))
    with pytest.raises(type(error)), gate.passing():
        raise error
    assert gate.limit == limit
    with gate.passing():
        pass
