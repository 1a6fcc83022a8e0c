"""More requests at once while that helps, fewer when the server says so."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.engine.concurrency import Controller, Pace
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
def test_the_pace_hears_what_the_server_says(error: Exception, limit: int) -> None:
    pace = Pace(Controller(64, start=8))
    pace.begin()
    pace.end(0, error)
    assert pace.limit() == limit


def test_bytes_on_their_way_are_bounded_and_one_that_is_larger_goes_alone() -> None:
    pace = Pace(Controller(64), room=100)
    lock, most, now, sizes = threading.Lock(), 0, 0, [40, 70, 150, 10, 60, 99, 1, 150]

    def send(size: int) -> None:
        nonlocal most, now
        with pace.carrying(size):
            with lock:
                now += size
                most = max(most, now if now != size else 0)
            time.sleep(0.01)
            with lock:
                now -= size

    threads = [threading.Thread(target=send, args=[size]) for size in sizes * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 100


def test_a_large_file_gets_its_turn_among_many_small_ones() -> None:
    pace = Pace(Controller(64), room=100)
    done = threading.Event()
    small = 0

    def crowd() -> None:
        nonlocal small
        while not done.is_set():
            with pace.carrying(30):
                small += 1

    def large() -> None:
        with pace.carrying(100):
            done.set()

    threads = [threading.Thread(target=crowd) for _ in range(4)]
    for thread in threads:
        thread.start()
    last = threading.Thread(target=large)
    last.start()
    last.join(20)
    came = done.is_set()
    done.set()
    for thread in threads:
        thread.join(20)
    assert came


def test_a_short_run_does_not_spend_itself_on_growing() -> None:
    """10,000 requests of 20 ms: one after the other they would take more than three minutes."""
    limits = run(Controller(128), lambda limit: limit / 0.02, 2)
    assert limits[-1] == 128


def test_it_doubles_no_further_than_it_pays() -> None:
    """One processor does it all, and more threads are only in each other's way."""
    limits = run(Controller(128), lambda limit: 5000 / (1 + limit / 20), 3)
    assert max(limits) <= 8
    assert limits[-1] <= 4
