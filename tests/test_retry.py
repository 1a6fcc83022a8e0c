"""What commands try again, and what they say of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.choice import engine_for_commands
from django_dualstorage.engine.objectstore import Condition, Source
from django_dualstorage.engine.retry import Patience, RetryingStore
from django_dualstorage.exceptions import S3Error, S3PreconditionError, S3TransientError
from tests.support.proxy import FaultProxy, LostAnswer, Refused, Status
from tests.support.seaweed import SeaweedServer

TYPED = {"ContentType": "text/x-test"}
ONCE_MORE = Patience(attempts=3, base=0.001)


def nothing() -> None:
    """Nobody notes that a request leaves."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "source").write_bytes(b"content")
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    yield Source(fd, 7)
    os.close(fd)


@pytest.fixture
def make(seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy) -> Callable[..., RetryingStore]:
    def engine(**options: Any) -> RetryingStore:
        complete = BotoStore(seaweed.client(endpoint_url=proxy.endpoint_url), seaweed_bucket)
        return engine_for_commands(complete, **{"patience": ONCE_MORE, **options})

    return engine


@pytest.mark.parametrize("fault", [Status(503), Status(500), LostAnswer(), Refused()], ids=repr)
def test_what_went_through_later_is_not_clean(
    make: Any, source: Source, proxy: FaultProxy, prefix: str, fault: Any
) -> None:
    engine = make()
    noted: list[None] = []
    proxy.fail(fault, times=2)
    written = engine.put(f"{prefix}/a", source, TYPED, sending=lambda: noted.append(None))
    assert not written.clean
    assert (proxy.count(), len(noted)) == (3, 3)
    assert engine.head(f"{prefix}/a").size == 7
    assert engine.put(f"{prefix}/a", source, TYPED, sending=nothing).clean
    proxy.fail(fault)
    assert not engine.delete(f"{prefix}/a", sending=nothing).clean


def test_an_attempt_that_never_left_cannot_land(make: Any, source: Source, prefix: str, proxy: FaultProxy) -> None:
    class Unreachable(BotoStore):
        fails = 2

        def put(self, *args: Any, **options: Any) -> Any:
            if self.fails:
                self.fails -= 1
                options["sending"]()
                raise S3TransientError("refused", sent=False)
            return super().put(*args, **options)

    complete = make()._store
    engine = RetryingStore(Unreachable(complete.client, complete.bucket), ONCE_MORE)
    assert engine.put(f"{prefix}/a", source, TYPED, sending=nothing).clean


def test_a_refusal_is_final_and_tells_of_the_attempts_before_it(
    make: Any, source: Source, proxy: FaultProxy, prefix: str
) -> None:
    engine = make()
    proxy.fail(Status(403))
    with pytest.raises(S3Error) as failure:
        engine.put(f"{prefix}/a", source, TYPED, sending=nothing)
    assert (proxy.count(), failure.value.retried) == (1, False)
    proxy.clear()
    # The first attempt has written it, so the second finds its own object in the way.
    proxy.fail(LostAnswer())
    with pytest.raises(S3PreconditionError) as refusal:
        engine.put(f"{prefix}/b", source, TYPED, Condition(absent=True), sending=nothing)
    assert (proxy.count(), refusal.value.retried) == (2, True)
    proxy.clear()
    with pytest.raises(S3PreconditionError) as refusal:
        engine.put(f"{prefix}/b", source, TYPED, Condition(absent=True), sending=nothing)
    assert (proxy.count(), refusal.value.retried) == (1, False)


def test_patience_ends(make: Any, source: Source, proxy: FaultProxy, prefix: str) -> None:
    proxy.fail(Status(503), times=None)
    with pytest.raises(S3TransientError) as failure:
        make().put(f"{prefix}/a", source, TYPED, sending=nothing)
    assert failure.value.retried
    assert proxy.count() == 3


def test_who_was_asked_to_stop_does_not_try_again(make: Any, source: Source, proxy: FaultProxy, prefix: str) -> None:
    proxy.fail(Status(503), times=None)
    with pytest.raises(S3TransientError):
        make(stop=lambda: True).put(f"{prefix}/a", source, TYPED, sending=nothing)
    assert proxy.count() == 1


def test_reading_is_tried_again_and_a_listing_goes_on_where_it_was(
    make: Any, source: Source, proxy: FaultProxy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    for name in "abcde":
        engine.put(f"{prefix}/{name}", source, TYPED, sending=nothing)
    complete = engine._store
    call = complete._call
    monkeypatch.setattr(complete, "_call", lambda operation, key, **more: call(operation, key, MaxKeys=2, **more))
    listing = engine.list_all(f"{prefix}/")
    found = [next(listing).key]
    proxy.clear()
    proxy.fail(Status(503), times=2)
    found += [listed.key for listed in listing]
    assert sorted(found) == [f"{prefix}/{name}" for name in "abcde"]
    assert proxy.count() == 4
    monkeypatch.undo()
    proxy.fail(Status(503))
    body = engine.get(f"{prefix}/a")
    assert body.read() == b"content"
    proxy.fail(Status(500))
    assert len(engine.list_folder(f"{prefix}/")[1]) == 5


@given(st.integers(1, 10_000), st.floats(0.001, 10), st.floats(0.001, 100))
def test_waits_grow_to_a_cap(failed: int, base: float, cap: float) -> None:
    patience = Patience(base=base, cap=cap)
    assert 0 < patience.ceiling(failed) <= cap
    assert patience.ceiling(failed) <= patience.ceiling(failed + 1)


def test_the_wait_is_anything_up_to_the_ceiling() -> None:
    asked: list[tuple[float, float]] = []
    slept: list[float] = []

    class Never(BotoStore):
        def head(self, key: str) -> Any:
            raise S3TransientError("no")

    def jitter(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    store = Never(None, "bucket")  # type: ignore[arg-type]
    patience = Patience(attempts=4, base=1, cap=3)
    with pytest.raises(S3TransientError):
        RetryingStore(store, patience, sleep=slept.append, jitter=jitter).head("a")
    assert asked == [(0, 1), (0, 2), (0, 3)]
    assert sum(slept) == 6
