"""Which engine carries the bytes, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import boto3

from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.concurrency import Pace
from django_dualstorage.engine.retry import PagedStore, Patience, RetryingStore
from django_dualstorage.engine.rust import RustStore, why_inexpressible
from django_dualstorage.engine.rust_settings import settings_of


@dataclass(frozen=True)
class Choice:
    """An engine; prints as a command would tell it."""

    #: Library and version.
    engine: str
    #: Why it is not the fast one; empty if it is.
    reason: str = ""

    @property
    def is_fast(self) -> bool:
        """Whether it is obstore."""
        return not self.reason

    def __str__(self) -> str:
        return f"{self.engine}, because {self.reason}" if self.reason else self.engine


def choose(store: BotoStore, parameters: Mapping[str, Any] | None = None) -> tuple[Choice, PagedStore]:
    """The fastest engine that does what ``store`` does, and which it is.

    ``parameters`` are those that an object of this site is written with: if obstore cannot express them the choice
    says so. The choice is made anew for each object: a site may decide by name. To be called in the process that uses
    the engine, since obstore does not survive a fork.
    """
    settings = settings_of(store)
    if isinstance(settings, str):
        return _boto(settings), store
    if parameters is not None and (why := why_inexpressible(parameters)):
        return _boto(f"obstore cannot express {why}"), store
    try:
        fast = RustStore(store, settings)
    except ImportError as error:
        return _boto(f"obstore cannot be used here: {error}"), store
    return Choice(f"obstore {_version('obstore')}"), fast


def _boto(reason: str) -> Choice:
    return Choice(f"boto3 {boto3.__version__}", reason)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(unknown version)"


def engine_for_commands(
    store: BotoStore,
    *,
    pace: Pace | None = None,
    parameters: Mapping[str, Any] | None = None,
    patience: Patience = Patience(),  # noqa: B008  immutable
    stop: Callable[[], bool] = lambda: False,
    on_choice: Callable[[Choice], None] = lambda choice: None,
    on_slow_down: Callable[[], None] = lambda: None,
) -> RetryingStore:
    """The engine of a command: the fastest that will do, patient, within the limits of ``pace``.

    ``on_choice`` is told which engine it is.
    """
    choice, chosen = choose(store, parameters)
    on_choice(choice)
    return RetryingStore(chosen, patience, pace=pace, stop=stop, on_slow_down=on_slow_down)
