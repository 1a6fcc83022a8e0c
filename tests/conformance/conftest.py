"""Each storage is built once: a new S3 client costs a tenth of a second. Tests stay apart by their folder."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage, InMemoryStorage, Storage
from storages.backends.s3 import S3Storage

from django_dualstorage.operations.probe import probe
from django_dualstorage.storage import DualWriteStorage
from tests.conformance.subjects import SUBJECTS, Subject
from tests.support.endpoint import S3Server


@pytest.fixture(scope="session")
def storage_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Subject], Any]:
    """The storage of a subject."""
    built: dict[Subject, Storage] = {}
    buckets: dict[str, str] = {}

    def options(subject: Subject) -> dict[str, Any]:
        server: S3Server = request.getfixturevalue(subject.server)
        bucket = buckets.get(subject.server) or buckets.setdefault(subject.server, server.create_bucket())
        return {
            "bucket_name": bucket,
            "location": f"c-{subject}",
            "endpoint_url": server.endpoint_url,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
            "region_name": "us-east-1",
            "signature_version": "s3v4",
        }

    def build(subject: Subject) -> Storage:
        if subject.name == "memory":
            return InMemoryStorage(base_url="/media/")
        if not subject.server:
            return FileSystemStorage(tmp_path_factory.mktemp("files"), base_url="/media/")
        if not subject.phase:
            plain: Storage = S3Storage(**options(subject), file_overwrite=False)
            return plain
        storage = DualWriteStorage(
            tmp_path_factory.mktemp(subject.phase),
            base_url="/media/",
            phase=subject.phase,
            provider="seaweedfs" if subject.server == "seaweed" else "minio",
            s3=options(subject),
        )
        if subject.probed:
            assert probe(storage.pair)
        return storage

    def get(subject: Subject) -> Storage:
        if subject not in built:
            built[subject] = build(subject)
        return built[subject]

    return get


@pytest.fixture(params=SUBJECTS, ids=str)
def subject(request: pytest.FixtureRequest) -> Subject:
    """The storage under test; ``parametrize("subject", having(...), indirect=True)`` names fewer."""
    found: Subject = request.param
    return found


@pytest.fixture
def storage(subject: Subject, storage_of: Callable[[Subject], Any]) -> Any:
    """Django's stubs know no common storage with all of these methods, hence Any."""
    return storage_of(subject)


@pytest.fixture
def box() -> str:
    """The folder of this test alone."""
    return f"b{uuid.uuid4().hex[:10]}"
