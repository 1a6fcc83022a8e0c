"""The entries of STORAGES that are ours, and whether they can be built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.contrib.staticfiles.storage import HashedFilesMixin
from django.core.checks import CheckMessage
from django.core.files.storage import storages
from django.utils.module_loading import import_string

from django_dualstorage.checks.messages import attempted, message, told
from django_dualstorage.conf import misspelt_settings
from django_dualstorage.core.phases import Policy, policy_of
from django_dualstorage.storage import DualWriteStorage


@dataclass(frozen=True)
class Dual:
    """One storage to be checked."""

    alias: str
    storage: DualWriteStorage
    #: As in STORAGES; may hold credentials.
    options: Mapping[str, Any]

    @property
    def where(self) -> str:
        """What a message calls it."""
        return where(self.alias)

    @property
    def pinned(self) -> Policy | None:
        """What the pinned phase means; None if the database decides, which checks do not ask."""
        phase = self.storage.options.phase
        return None if phase is None else policy_of(phase)

    @property
    def may_use_disk(self) -> bool:
        """Whether it works on MEDIA_ROOT in any phase it may be in."""
        return self.pinned is None or self.pinned.writes_local

    @property
    def must_use_s3(self) -> bool:
        """Whether it asks S3 in every phase it may be in."""
        return self.pinned is not None and not self.pinned.local_truth

    @property
    def may_use_s3(self) -> bool:
        """Whether it asks S3 in any phase it may be in."""
        return self.pinned is None or self.pinned.writes_s3


def where(alias: str) -> str:
    """What a message calls the storage of that alias."""
    return f"STORAGES[{alias!r}]"


def dual_storages() -> Iterator[Dual]:
    """Every storage of this package in STORAGES that can be built."""
    for alias, backend, options in _dual_backends():
        if not _misused(alias, backend):
            storage = attempted(storages.__getitem__, alias)
            if isinstance(storage, DualWriteStorage):  # unusable_storages() tells of the others
                yield Dual(alias, storage, options)


def misspelt() -> Iterator[CheckMessage]:
    """Settings with our prefix that nobody reads."""
    for name, meant in misspelt_settings():
        yield message(
            "dualstorage.W031",
            name,
            "There is no such setting, so it does nothing.",
            f"Is {meant} meant?" if meant else "Take it out; docs/settings.rst has those there are.",
        )


def unusable_storages() -> Iterator[CheckMessage]:
    """Options that are unknown or cannot be used."""
    for alias, backend, options in _dual_backends():
        if not _misused(alias, backend):
            storage = attempted(storages.__getitem__, alias)
            if isinstance(storage, Exception):
                yield message(
                    "dualstorage.E001",
                    where(alias),
                    f"The storage cannot be built: {told(storage, options)}",
                    "Correct its OPTIONS or the DUALSTORAGE_ setting that is named.",
                )


def misused_backends() -> Iterator[CheckMessage]:
    """Static files. Their storages read and write a manifest, which must not depend on the phase of a migration."""
    for alias, backend, _ in _dual_backends():
        if HashedFilesMixin in backend.__mro__:
            yield message(
                "dualstorage.E002",
                where(alias),
                f"{backend.__name__} mixes DualWriteStorage with a storage for static files with hashed names.",
                "Take ManifestFilesMixin out of it: uploads have no manifest. Static files need a storage of "
                "their own.",
            )
        elif alias == "staticfiles":
            yield message(
                "dualstorage.E003",
                where(alias),
                "Static files are to be stored by DualWriteStorage, which is for uploads.",
                "collectstatic makes static files anew at each release, so nothing has to be migrated: give them a "
                "storage of django.contrib.staticfiles, WhiteNoise or django-storages.",
            )


def _misused(alias: str, backend: type[DualWriteStorage]) -> bool:
    """Such a storage is not even built: one with a manifest reads it there and then."""
    return alias == "staticfiles" or HashedFilesMixin in backend.__mro__


def _dual_backends() -> Iterator[tuple[str, type[DualWriteStorage], Mapping[str, Any]]]:
    entries: dict[str, Any] = dict(storages.backends)
    for alias, entry in entries.items():
        backend = entry.get("BACKEND")
        if isinstance(backend, str):
            try:
                backend = import_string(backend)
            except ImportError:
                continue  # Django says so when that storage is used
        if isinstance(backend, type) and issubclass(backend, DualWriteStorage):
            yield alias, backend, entry.get("OPTIONS") or {}
