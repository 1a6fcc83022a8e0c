"""The smallest Django site that a storage in each phase can live in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.files.storage import FileSystemStorage
from django.core.management import call_command
from storages.backends.s3 import S3Storage

from django_dualstorage import records
from django_dualstorage.core.phases import Phase
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.support.seaweed import SeaweedServer


def set_up(folder: str) -> None:
    """Configure Django with a database in ``folder``: the phase is a row there, as on a real site."""
    settings.configure(
        SECRET_KEY="benchmarks",
        USE_TZ=True,
        INSTALLED_APPS=["django_dualstorage"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(folder, "db.sqlite3")}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        LOGGING={"version": 1, "loggers": {"django_dualstorage": {"level": "CRITICAL"}}},
    )
    django.setup()
    call_command("migrate", verbosity=0)


class Storages:
    """The storages that are compared; each has a folder and a key prefix of its own."""

    def __init__(self, folder: str, server: SeaweedServer) -> None:
        self._folder = folder
        self._server = server
        self._bucket = server.create_bucket()
        self._made = 0

    def ours(self, phase: Phase, *, endpoint_url: str | None = None, **options: Any) -> DualWriteStorage:
        """The storage in ``phase``, as it is after a backfill that found everything on both sides."""
        location, alias = self._new_place()
        storage = DualWriteStorage(
            location, "/media/", alias=alias, provider="seaweedfs", s3=self._s3(alias, endpoint_url), **options
        )
        probe(storage.pair)
        records.set_phase(alias, phase)
        records.set_certified(alias, complete=True, phase=phase, volume_id=storage.pair.journal.volume_id)
        return storage

    def theirs(self, *, endpoint_url: str | None = None, **options: Any) -> Any:
        """django-storages' S3Storage with the very same connection settings."""
        return S3Storage(**self._s3(self._new_place()[1], endpoint_url), **options)

    def local(self) -> FileSystemStorage:
        """Django's own."""
        return FileSystemStorage(self._new_place()[0], "/media/")

    def _new_place(self) -> tuple[str, str]:
        self._made += 1
        alias = f"storage{self._made}"
        location = Path(self._folder, "media", alias)
        location.mkdir(parents=True)
        return str(location), alias

    def _s3(self, prefix: str, endpoint_url: str | None) -> dict[str, Any]:
        return {
            "bucket_name": self._bucket,
            "location": prefix,
            "endpoint_url": endpoint_url or self._server.endpoint_url,
            "access_key": self._server.access_key,
            "secret_key": self._server.secret_key,
            "region_name": "us-east-1",
            "signature_version": "s3v4",
            "addressing_style": "path",
        }
