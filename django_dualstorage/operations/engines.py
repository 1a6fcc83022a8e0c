"""The pair that a long command works with: the storage's own, with what only commands need around its engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from django_dualstorage.protocol.pair import Pair


@dataclass(frozen=True)
class Limits:
    """What a run may use up. None: no limit."""

    #: Bytes a second.
    bandwidth: int | None = None
    #: Requests a second.
    requests: float | None = None
    #: Seconds until nothing new is begun.
    duration: float | None = None


def pair_for_command(pair: Pair, limits: Limits) -> Pair:
    """The storage's pair for one run of a command: other threads of this process go on with the storage's own."""
    return replace(pair)
