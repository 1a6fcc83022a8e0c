"""The pair that a long command works with: the storage's own, with what only commands need around its engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from django_dualstorage.core.stamp import Stamp
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.choice import Choice, engine_for_commands
from django_dualstorage.engine.concurrency import Controller, Pace
from django_dualstorage.engine.objectstore import ObjectStore
from django_dualstorage.engine.retry import Patience
from django_dualstorage.engine.throttle import Throttle
from django_dualstorage.protocol.pair import Pair

#: Files at once, if that helps; how many it really is a run finds out.
MOST_WORKERS: Final = 128


@dataclass(frozen=True)
class Limits:
    """What a run may use up. None: no limit."""

    #: Bytes a second.
    bandwidth: int | None = None
    #: Requests a second.
    requests: float | None = None
    #: Seconds until nothing new is begun.
    duration: float | None = None


def pace_for_command(workers: int, limits: Limits, *, stop: Callable[[], bool]) -> Pace:
    """What all requests of one run keep to: ``limits``, and no more than ``workers`` files at once."""
    return Pace(Controller(workers), Throttle(limits.bandwidth, limits.requests, stop=stop))


def pair_for_command(
    pair: Pair,
    *,
    pace: Pace,
    stop: Callable[[], bool],
    on_choice: Callable[[Choice], None],
    patience: Patience,
) -> Pair:
    """The storage's pair for one run of a command, in the process that runs it: with the fastest engine that will do,
    patient and at its ``pace``. Other threads of this process go on with the storage's own.

    ``on_choice`` is told which engine it is. Raises S3Error if the client cannot be made.
    """
    # What an object is written with may depend on its name; the engine looks at each again.
    typical = pair.s3.parameters("", Stamp(0, 0), "0" * 32)

    def wrapped(store: ObjectStore) -> ObjectStore:
        if not isinstance(store, BotoStore):
            return store
        return engine_for_commands(
            store,
            pace=pace,
            parameters=typical,
            patience=patience,
            stop=stop,
            on_choice=on_choice,
        )

    return replace(pair, s3=pair.s3.through(wrapped))
