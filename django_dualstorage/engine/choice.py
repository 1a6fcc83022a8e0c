"""Which engine carries the bytes, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from django_dualstorage import __version__
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.concurrency import Pace
from django_dualstorage.engine.direct import DirectStore
from django_dualstorage.engine.direct_settings import settings_of
from django_dualstorage.engine.retry import PagedStore, Patience, RetryingStore


@dataclass(frozen=True)
class Choice:
    """An engine; prints as a command would tell it."""

    #: Library and version.
    engine: str
    #: Why it is not the fast one; empty if it is.
    reason: str = ""

    @property
    def is_fast(self) -> bool:
        """Whether it is the direct one."""
        return not self.reason

    def __str__(self) -> str:
        return f"{self.engine}, because {self.reason}" if self.reason else self.engine


def choose(store: BotoStore, parameters: Mapping[str, Any] | None = None) -> tuple[Choice, PagedStore]:
    """The fastest engine that does what ``store`` does, and which it is.

    ``parameters`` are those that an object of this site is written with: if the direct engine cannot express them the
    choice says so. The choice is made anew for each request: a site may decide by name.
    """
    settings = settings_of(store)
    if isinstance(settings, str):
        return _boto(settings), store
    fast = DirectStore(store, settings)
    if parameters is not None and (why := fast.why_inexpressible(parameters)):
        return _boto(f"the direct engine cannot express {why}"), store
    return Choice(f"direct {__version__}"), fast


def _boto(reason: str) -> Choice:
    return Choice(f"boto3 {boto3.__version__}", reason)


def engine_for_commands(
    store: BotoStore,
    *,
    pace: Pace | None = None,
    parameters: Mapping[str, Any] | None = None,
    patience: Patience = Patience(),  # noqa: B008  immutable
    stop: Callable[[], bool] = lambda: False,
    on_choice: Callable[[Choice], None] = lambda choice: None,
) -> RetryingStore:
    """The engine of a command: the fastest that will do, patient, within the limits of ``pace``.

    ``on_choice`` is told which engine it is.
    """
    choice, chosen = choose(store, parameters)
    on_choice(choice)
    return RetryingStore(chosen, patience, pace=pace, stop=stop)
