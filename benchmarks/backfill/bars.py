"""What was aimed at, and whether it was reached: ours beside the better of the two fastest movers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.backfill.measuring import Cost
from benchmarks.backfill.workloads import MIB

OURS = "ours"
#: Those that have to be beaten; the others are there to be looked at.
RIVALS = ("s5cmd", "rclone")


@dataclass(frozen=True)
class Bar:
    """At least so many times the throughput, at most that share of the client CPU, at most so much memory (MiB)."""

    speed: float
    cpu: float
    rss: int | None = None

    def __str__(self) -> str:
        memory = "" if self.rss is None else f", <= {self.rss} MiB"
        return f">= {self.speed:g} x, <= {self.cpu:g}{memory}"


@dataclass(frozen=True)
class Bars:
    """What must be reached, and what is aimed at."""

    floor: Bar
    aim: Bar


_SMALL_OVER_A_NETWORK = Bars(Bar(1.5, 0.5), Bar(2.5, 0.25))
_MEDIUM = Bars(Bar(1.2, 0.5), Bar(1.3, 0.25))
_LARGE = Bars(Bar(1.05, 0.6, 256), Bar(1.3, 0.25, 256))
_NOTHING = Bars(Bar(1.4, 0.5), Bar(1.5, 0.33, 64))

#: By work-load and server. Those that name no server of their own hold on each.
BARS = {
    ("small", "null"): Bars(Bar(1.9, 0.5), Bar(3, 0.2)),
    ("small", "null-tls"): _SMALL_OVER_A_NETWORK,
    ("small", "null-20ms"): _SMALL_OVER_A_NETWORK,
    ("small", "seaweedfs"): Bars(Bar(1.1, 0.5), Bar(1.4, 0.2)),
    ("medium", "seaweedfs"): _MEDIUM,
    ("medium", "null"): _MEDIUM,
    ("large", "seaweedfs"): _LARGE,
    ("large", "null"): _LARGE,
    ("nothing", "seaweedfs"): _NOTHING,
    ("nothing", "null"): _NOTHING,
}


@dataclass(frozen=True)
class Ratios:
    """Ours beside the quicker and beside the more frugal of the rivals, which need not be the same one."""

    speed: float
    cpu: float
    rss: int

    def reach(self, bar: Bar) -> bool:
        """Whether they reach it, as measured and not as rounded."""
        return self.speed >= bar.speed and self.cpu <= bar.cpu and (bar.rss is None or self.rss <= bar.rss * MIB)

    def as_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {"speed": round(self.speed, 3), "cpu": round(self.cpu, 3), "rss_mib": round(self.rss / MIB, 1)}


def ratios(ours: Cost, rivals: Iterable[Cost]) -> Ratios:
    """Raises ValueError without a rival: a ratio to nothing would look like a success."""
    rivals = list(rivals)
    if not rivals:
        raise ValueError("nobody to compare with")
    return Ratios(
        min(rival.seconds for rival in rivals) / ours.seconds,
        ours.cpu / min(rival.cpu for rival in rivals),
        ours.rss,
    )
