"""An object looks the same whoever wrote it: either engine, the application, django-storages alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from storages.backends.s3 import S3Storage

from django_dualstorage.core.stamp import Stamp
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.choice import choose
from django_dualstorage.engine.objectstore import ObjectStore, Source
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import client_of, key
from tests.support.moto import MotoServer

MIB = 1024 * 1024
SITES: dict[str, dict[str, Any]] = {
    "nothing set": {},
    "all parameters": {
        "CacheControl": "max-age=86400",
        "ContentDisposition": 'attachment; filename="x  y"',
        "ContentLanguage": "de",
        "StorageClass": "STANDARD_IA",
        "Metadata": {"site": "mine", "Upper-Case": "a:b/c"},
    },
    "an encoding": {"ContentEncoding": "identity", "ContentType": "text/plain"},
    "a date in words": {"CacheControl": "no-store", "Expires": "Thu, 01 Dec 2044 16:00:00 GMT"},
    "a date": {"Expires": datetime(2044, 12, 1, 16, tzinfo=timezone.utc)},
    "what only boto3 sends": {"ContentDisposition": " of spaces"},
}
NAMES = ["ü a+b.pdf", "b.tar.gz", "no-suffix"]


def nothing() -> None:
    """Nobody notes that a request leaves."""


def told(storage: DualWriteStorage, name: str, *without: str) -> dict[str, Any]:
    """All that S3 says of the object, but for when it was written."""
    client, bucket = client_of(storage)
    answer: dict[str, Any] = client.head_object(Bucket=bucket, Key=key(storage, name), ChecksumMode="ENABLED")
    for changing in ("ResponseMetadata", "LastModified", *without):
        answer.pop(changing, None)
    return answer


def unstamped(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what belongs to one write."""
    metadata = {name: value for name, value in answer["Metadata"].items() if not name.startswith("ds-")}
    return {**answer, "Metadata": metadata}


def engines(storage: DualWriteStorage) -> tuple[BotoStore, ObjectStore]:
    complete = storage.pair.s3.store
    assert isinstance(complete, BotoStore)
    choice, fast = choose(complete)
    assert choice.is_fast, choice
    return complete, fast


def write(storage: DualWriteStorage, store: ObjectStore, name: str, path: Path) -> None:
    """What backfill does, with this engine."""
    fd = os.open(path, os.O_RDONLY)
    try:
        source = Source(fd, os.fstat(fd).st_size)
        parameters = storage.pair.s3.parameters(key(storage, name), Stamp(source.size, 1), "op")
        store.put(key(storage, name), source, parameters, sending=nothing)
    finally:
        os.close(fd)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", NAMES)
def test_every_writer_writes_the_same(
    make_storage: MakeStorage, s3_options: dict[str, Any], tmp_path: Path, site: str, name: str
) -> None:
    storage = make_storage("dual", s3={"object_parameters": SITES[site]})
    (tmp_path / "source").write_bytes(b"content")
    complete, fast = engines(storage)
    write(storage, complete, f"boto3/{name}", tmp_path / "source")
    write(storage, fast, f"direct/{name}", tmp_path / "source")
    saved = storage.save(f"application/{name}", ContentFile(b"content"))
    assert told(storage, f"boto3/{name}") == told(storage, f"direct/{name}")
    expected = unstamped(told(storage, f"boto3/{name}"))
    assert unstamped(told(storage, saved)) == expected
    assert expected["ChecksumSHA256"]
    alone = S3Storage(**s3_options, object_parameters=SITES[site], file_overwrite=True)
    alone.save(f"alone/{name}", ContentFile(b"content"))
    # It chooses a checksum of its own.
    sums = ("ChecksumSHA256", "ChecksumCRC32", "ChecksumCRC64NVME", "ChecksumType")
    assert unstamped(told(storage, f"alone/{name}", *sums)) == unstamped(told(storage, f"boto3/{name}", *sums))


def test_large_objects_are_the_same_too(make_storage: MakeStorage, tmp_path: Path) -> None:
    storage = make_storage("dual", s3={"object_parameters": SITES["all parameters"]})
    (tmp_path / "source").write_bytes(os.urandom(17 * MIB))
    for name, store in zip(("boto3", "direct"), engines(storage), strict=True):
        write(storage, store, name, tmp_path / "source")
    assert told(storage, "boto3") == told(storage, "direct")
    assert told(storage, "boto3")["ETag"].endswith('-3"')


@pytest.mark.parametrize(
    "parameters",
    [
        {"ACL": "public-read"},
        {"ServerSideEncryption": "AES256"},
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/abcd"},
        {"Tagging": "a=b&c=d"},
        {"WebsiteRedirectLocation": "/elsewhere"},
    ],
    ids=lambda parameters: "+".join(parameters),
)
def test_what_only_another_server_keeps_is_the_same(
    moto: MotoServer, make_storage: MakeStorage, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    """On moto: SeaweedFS has no ACLs and here no encryption."""
    storage = make_storage(
        "dual",
        provider="minio",
        s3={
            "bucket_name": moto.create_bucket(),
            "endpoint_url": moto.endpoint_url,
            "access_key": moto.access_key,
            "secret_key": moto.secret_key,
            "object_parameters": parameters,
        },
    )
    (tmp_path / "source").write_bytes(b"content")
    client, bucket = client_of(storage)
    found: list[Any] = []
    ask: Callable[..., Any] = client.get_object_tagging
    for name, store in zip(("boto3", "direct"), engines(storage), strict=True):
        write(storage, store, name, tmp_path / "source")
        grants = client.get_object_acl(Bucket=bucket, Key=key(storage, name))["Grants"]
        tags = ask(Bucket=bucket, Key=key(storage, name))["TagSet"]
        found.append((told(storage, name), grants, tags))
    assert found[0] == found[1]
    answer, grants, tags = found[0]
    assert "ACL" not in parameters or any(grant["Permission"] == "READ" for grant in grants)
    assert "Tagging" not in parameters or len(tags) == 2
    for name in ("ServerSideEncryption", "SSEKMSKeyId", "WebsiteRedirectLocation"):
        assert answer.get(name) == parameters.get(name)
