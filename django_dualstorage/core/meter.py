"""How far a run is and how fast it goes, in numbers and in one line."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from django_dualstorage.core.quantities import show_bytes, show_duration
from django_dualstorage.core.report import FileResult

#: The speed of the moment is that of so many seconds.
_WINDOW = 30.0


@dataclass
class Meter:
    """Counts files as they come; one thread adds, any may read. ``now`` is a monotonic clock, in seconds."""

    started: float
    files: int = 0
    #: Bytes that were moved, not only looked at.
    bytes: int = 0
    problems: int = 0
    #: All files that there are to look at; None while nobody knows.
    total: int | None = None
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def add(self, result: FileResult) -> None:
        """One file is done with."""
        self.files += 1
        if result.outcome.moves_bytes:
            self.bytes += result.size
        if result.outcome.is_problem:
            self.problems += 1

    def add_many(self, files: int) -> None:
        """So many files needed nothing."""
        self.files += files

    def sample(self, now: float) -> None:
        """Remember where the run is, for :meth:`speed`; to be called about once a second."""
        self._samples.append((now, self.files, self.bytes))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW:
            self._samples.popleft()

    def speed(self, now: float) -> tuple[float, float]:
        """Files and bytes a second, of the last half minute."""
        then, files, size = self._samples[0] if self._samples else (self.started, 0, 0)
        seconds = now - then
        if seconds <= 0:
            return 0.0, 0.0
        return (self.files - files) / seconds, (self.bytes - size) / seconds

    def left(self, now: float) -> float | None:
        """Seconds until the end at the speed of the moment; None if nobody knows."""
        files_a_second, _ = self.speed(now)
        if self.total is None or not files_a_second:
            return None
        return max(0, self.total - self.files) / files_a_second

    def line(self, now: float) -> str:
        """``12,345 of 50,000 files (24 %), 830 files/s, 41.2 MB/s, about 45 s left``"""
        files_a_second, bytes_a_second = self.speed(now)
        if self.total is None:
            parts = [f"{self.files:,} files so far"]
        else:
            total = max(self.total, self.files)
            parts = [f"{self.files:,} of {total:,} files ({100 * self.files // total if total else 100} %)"]
        parts += [f"{files_a_second:,.0f} files/s", f"{show_bytes(bytes_a_second)}/s"]
        left = self.left(now)
        if left is not None:
            parts.append(f"about {show_duration(left)} left")
        if self.problems:
            parts.append(f"{self.problems:,} problem{'s' if self.problems > 1 else ''}")
        return ", ".join(parts)
