"""Calm lines on a terminal."""

from __future__ import annotations

import sys
import time

_WIDTH = 96


class Console:
    """Numbered steps, each with how long it took."""

    def __init__(self) -> None:
        self._number = 0
        self._began = self._step_began = time.monotonic()

    def title(self, text: str) -> None:
        """The first line."""
        print(f"{text}\n", flush=True)

    def step(self, text: str) -> None:
        """What begins now."""
        self._number += 1
        self._step_began = time.monotonic()
        print(f"{self._number:>2}  {text}", flush=True)

    def say(self, text: str) -> None:
        """A line of the step; the last of a step tells its time."""
        print(f"    {text}", flush=True)

    def done(self, text: str) -> None:
        """The outcome of the step."""
        seconds = f"{time.monotonic() - self._step_began:.1f} s"
        print(f"    {text:<{_WIDTH - 12}}{seconds:>8}", flush=True)

    def table(self, rows: list[tuple[str, str]]) -> None:
        """The summary."""
        print("\n" + "-" * _WIDTH)
        for name, value in rows:
            print(f"{name:<28}{value}")
        print("-" * _WIDTH, flush=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began


def complain(text: str) -> None:
    """What went wrong."""
    print(f"\n{text}", file=sys.stderr, flush=True)
