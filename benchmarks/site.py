"""The storages that are compared, on one site and one server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage
from storages.backends.s3 import S3Storage

from benchmarks.settings import FOLDER
from django_dualstorage import records
from django_dualstorage.core.phases import Phase
from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.support.seaweed import SeaweedServer


class Storages:
    """Makes them; each has a folder and a key prefix of its own."""

    def __init__(self, server: SeaweedServer) -> None:
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
        volume_id = storage.pair.journal.volume_id
        records.set_certified(alias, complete=True, phase=phase, volume_id=volume_id, place=storage.place)
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
        location = Path(FOLDER, "media", alias)
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
