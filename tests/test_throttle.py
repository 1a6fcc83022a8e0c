"""Limits hold, whatever is asked and whenever."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.engine.throttle import Throttle, TokenBucket


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(
    st.floats(0.1, 1e6),
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 10)), min_size=1, max_size=50),
)
def test_no_stretch_of_time_gets_more_than_its_share(
    rate: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    bucket, now, used = TokenBucket(rate, burst), 0.0, []
    for amount, pause in asked:
        now += pause
        now += bucket.take(amount, now)
        used.append((now, amount))
    for first in range(len(used)):
        granted = 0.0
        for when, amount in used[first:]:
            # All but the last one asked for, which may be larger than any burst.
            assert granted <= (burst + rate * (when - used[first][0])) * (1 + 1e-6) + 1e-3
            granted += amount


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_who_has_waited_does_not_wait_again(rate: float, amount: float) -> None:
    bucket = TokenBucket(rate, 1)
    bucket.take(1 + amount, 0.0)
    wait = bucket.take(0, 0.0)
    assert wait == pytest.approx(amount / rate)
    assert bucket.take(1, wait * (1 + 1e-9) + 1e-9) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0)])
def test_a_limit_is_more_than_nothing(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        TokenBucket(rate, burst)


def test_both_limits_hold() -> None:
    clock = Clock()
    throttle = Throttle(1000, 10, clock=clock, sleep=clock.sleep)
    for _ in range(101):
        throttle.wait_for_bytes(1)
        throttle.wait_for_request()
    assert clock.now - 1000 == pytest.approx(10, rel=0.02)
    clock.now = 2000
    for _ in range(11):
        throttle.wait_for_request()
        throttle.wait_for_bytes(1000)
    assert clock.now - 2000 == pytest.approx(10, rel=0.11)


def test_bytes_received_count() -> None:
    clock = Clock()
    throttle = Throttle(1000, clock=clock, sleep=clock.sleep)
    throttle.received(5000)
    throttle.wait_for_request()
    assert clock.now == 1000
    throttle.wait_for_bytes(0)
    assert clock.now - 1000 == pytest.approx(4)


def test_who_is_asked_to_stop_waits_no_longer() -> None:
    clock = Clock()
    throttle = Throttle(1, stop=lambda: clock.now > 1003, clock=clock, sleep=clock.sleep)
    throttle.wait_for_bytes(1_000_000)
    throttle.wait_for_bytes(1)
    assert clock.now < 1005


def test_threads_share_it() -> None:
    slept: list[float] = []
    throttle = Throttle(None, 1, clock=lambda: 0.0, sleep=slept.append)
    threads = [threading.Thread(target=throttle.wait_for_request) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(slept) == pytest.approx(0 + 0 + 1 + 2)
