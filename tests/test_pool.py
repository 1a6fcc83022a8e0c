"""The pool: bounded, in threads that end, with errors in the caller's thread; and Ctrl-C once and twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from django_dualstorage.engine.pool import Pool, Stop
from tests.support.asserts import never_stop


def same(item: int) -> int:
    return item


def twice(item: int) -> int:
    return item * 2


def threads_of_pools() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name.startswith(("dualstorage-feed", "dualstorage-work"))
    ]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    for thread in threads_of_pools():
        thread.join(60)
        assert not thread.is_alive(), thread.name


@pytest.mark.parametrize("workers", [0, 1, 7])
def test_every_item_once(workers: int) -> None:
    pool = Pool(twice, workers, never_stop())
    assert sorted(pool.run(range(500))) == [item * 2 for item in range(500)]


def test_no_items() -> None:
    assert list(Pool(str, 3, never_stop()).run(())) == []


def test_items_are_taken_no_further_ahead_than_results_may_wait() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(10_000):
            taken = item
            yield item

    results = Pool(same, 2, never_stop()).run(items())
    for _ in range(10):
        next(results)
    time.sleep(0.3)  # nothing asks for more meanwhile
    assert taken < 10 + 512 + 2
    assert isinstance(results, Iterator)
    results.close()


def test_as_many_work_as_the_limit_says_at_the_moment() -> None:
    now, most = 0, {1: 0, 6: 0, 2: 0}
    lock = threading.Lock()
    allowed = [1]

    def work(item: int) -> int:
        nonlocal now
        with lock:
            now += 1
            most[allowed[0]] = max(most[allowed[0]], now)
        time.sleep(0.002)
        with lock:
            now -= 1
        return item

    results = []
    for result in Pool(work, 100, never_stop(), lambda: allowed[0]).run(range(600)):
        results.append(result)
        allowed[0] = 1 if len(results) < 100 else 6 if len(results) < 400 else 2
        if len(results) == 400:
            time.sleep(0.1)  # those that are too many end with the item that they have
            most[2] = 0
    assert sorted(results) == list(range(600))
    assert most[1] <= 2  # the one that a change found at work
    assert 3 <= most[6] <= 6
    assert most[2] <= 6


def test_slow_caller_of_many_results() -> None:
    results = Pool(same, 1, never_stop()).run(range(30))
    first = next(results)
    time.sleep(0.5)  # longer than the time-out at which full queues are looked at again
    assert [first, *results] == list(range(30))


def test_slow_work() -> None:
    """Longer than the time-out at which an empty queue is looked at again."""
    assert list(Pool(time.sleep, 2, never_stop()).run([0.5])) == [None]


def test_error_in_work_is_raised_after_what_is_in_flight() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError("three")
        done.append(item)
        return item

    results = []
    with pytest.raises(ZeroDivisionError, match="three"):
        results += list(Pool(work, 2, never_stop()).run(range(10_000)))
    assert len(done) < 1000


def test_first_of_several_errors_counts() -> None:
    begin = threading.Barrier(2)

    def work(item: int) -> None:
        begin.wait()
        raise ZeroDivisionError(item)

    with pytest.raises(ZeroDivisionError):
        list(Pool(work, 2, never_stop()).run(range(2)))


def test_error_in_items_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("items")

    with pytest.raises(ZeroDivisionError, match="items"):
        list(Pool(str, 2, never_stop()).run(items()))


def test_caller_that_has_enough_ends_the_threads() -> None:
    results = Pool(same, 3, never_stop()).run(iter(range(10_000)))
    next(results)
    results.close()
    # the fixture waits for them


def test_stop_begins_nothing_new() -> None:
    stop = never_stop()
    results = []
    for result in Pool(same, 1, stop).run(range(10_000)):
        results.append(result)
        stop.ask()
    assert results == list(range(len(results)))
    assert len(results) <= 512 + 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_the_second_leaves(number: signal.Signals) -> None:
    told: list[str] = []
    before = signal.getsignal(number)
    stop = Stop(told.append)
    with stop.on_ctrl_c() as listening:
        assert listening is stop
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert len(told) == 1
        assert "again stops at once" in told[0]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before


def test_second_signal_leaves_a_run_that_hangs() -> None:
    free = threading.Event()
    stop = never_stop()
    stop.ask()

    def wait(item: int) -> bool:
        return free.wait(60)

    running = Pool(wait, 1, never_stop()).run(range(3))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with stop.on_ctrl_c(), pytest.raises(KeyboardInterrupt):
        next(running)
    free.set()
    timer.join()


def test_other_threads_do_not_listen() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def elsewhere() -> None:
        with never_stop().on_ctrl_c():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [before]
