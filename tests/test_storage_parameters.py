"""What an object is written with: the same for the application, backfill and repair, and as django-storages does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from storages.backends.s3 import S3Storage

from django_dualstorage.core.report import Outcome
from django_dualstorage.protocol.reconcile import reconcile
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import client_of, head_object, key, put_object, repaired
from tests.support.moto import MotoServer

FULL = {
    "CacheControl": "max-age=86400",
    "ContentDisposition": 'attachment; filename="x"',
    "ContentLanguage": "de",
    "StorageClass": "STANDARD",
    "Metadata": {"site": "mine"},
}
NAMES = ["ü.pdf", "b.tar.gz", "no-suffix"]
ALL_PHASES = ["mirror", "dual", "dual-strict", "s3-primary", "s3"]


class SiteStorage(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """A site's own, that decides by name."""

    def get_object_parameters(self, name: str) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_object_parameters(name)
        return {**parameters, "ContentLanguage": "fr" if "u" in name else "en", "ContentType": "application/x-site"}


SITES: dict[str, dict[str, Any]] = {
    "nothing set": {},
    "all parameters": {"object_parameters": FULL},
    "the site's type": {"object_parameters": {"ContentType": "text/x-site"}},
    "the site's encoding": {"object_parameters": {"ContentEncoding": "identity", "ContentType": "text/plain"}},
    "a default type": {"default_acl": None, "object_parameters": {"CacheControl": "no-store"}},
}


def headers(storage: DualWriteStorage, name: str) -> dict[str, Any]:
    """All that a reader of the object is told, but for what belongs to one write."""
    answer = head_object(storage, name)
    for changing in ("ResponseMetadata", "ETag", "LastModified", "ChecksumSHA256", "ChecksumType"):
        answer.pop(changing, None)
    answer["Metadata"] = {name: value for name, value in answer["Metadata"].items() if not name.startswith("ds-")}
    return answer


@pytest.mark.parametrize("site", SITES)
def test_application_backfill_and_django_storages_write_the_same(
    make_storage: MakeStorage, s3_options: dict[str, Any], media_root: Path, site: str
) -> None:
    storage = make_storage("dual", s3=SITES[site])
    theirs = S3Storage(**{**s3_options, "location": f"{s3_options['location']}/theirs", **SITES[site]})
    for name in NAMES:
        storage.save(name, ContentFile(b"content"))
        theirs.save(name, ContentFile(b"content"))
        expected = headers(storage, f"theirs/{name}")
        assert headers(storage, name) == expected
        (media_root / "found").mkdir(exist_ok=True)
        (media_root / "found" / name).write_bytes(b"content")
        assert reconcile(storage.pair, storage.policy, f"found/{name}", now=time.time()).outcome is Outcome.UPLOADED
        assert headers(storage, f"found/{name}") == expected
        put_object(storage, f"adopted/{name}", b"content", ContentType="application/x-other", CacheControl="private")
        (media_root / "adopted").mkdir(exist_ok=True)
        (media_root / "adopted" / name).write_bytes(b"content")
        assert reconcile(storage.pair, storage.policy, f"adopted/{name}", now=time.time()).outcome is Outcome.ADOPTED
        assert headers(storage, f"adopted/{name}") == expected


def test_a_site_decides_by_name(media_root: Path, s3_options: dict[str, Any]) -> None:
    s3 = {"BACKEND": f"{__name__}.SiteStorage", "OPTIONS": s3_options}
    storage = DualWriteStorage(media_root, phase="dual", provider="seaweedfs", s3=s3)
    for name, language in (("uuu.txt", "fr"), ("xxx.txt", "en")):
        storage.save(name, ContentFile(b"x"))
        assert headers(storage, name)["ContentLanguage"] == language
        assert headers(storage, name)["ContentType"] == "application/x-site"


@pytest.mark.parametrize("phase", ALL_PHASES)
def test_the_content_type_of_an_upload_reaches_s3(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    name = storage.save("a.txt", SimpleUploadedFile("a.txt", b"x", content_type="text/x-own"))
    assert headers(storage, name)["ContentType"] == "text/x-own"
    name = storage.save("a.txt", ContentFile(b"x"))
    assert headers(storage, name)["ContentType"] == "text/plain"


@pytest.mark.parametrize("bad", ["text/plain\r\nX-Evil: 1", "ünï", "x" * 300, 7])
def test_a_content_type_that_no_header_can_carry_is_left_out(make_storage: MakeStorage, bad: Any) -> None:
    storage = make_storage("dual")
    content = ContentFile(b"x")
    content.content_type = bad  # type: ignore[attr-defined]
    name = storage.save("a.txt", content)
    assert headers(storage, name)["ContentType"] == "text/plain"


def test_a_deferred_upload_keeps_its_content_type(make_storage: MakeStorage) -> None:
    storage = make_storage("dual", s3_writes="deferred", s3={"object_parameters": FULL})
    name = storage.save("a.txt", SimpleUploadedFile("a.txt", b"x", content_type="text/x-own"))
    repaired(storage)
    inline = make_storage("dual", s3={"object_parameters": FULL})
    other = inline.save("a.txt", SimpleUploadedFile("a.txt", b"x", content_type="text/x-own"))
    assert headers(storage, name) == headers(storage, other)
    assert headers(storage, name)["ContentType"] == "text/x-own"


@pytest.mark.parametrize("acl", ["private", "public-read"])
@pytest.mark.parametrize("where", ["default_acl", "object_parameters"])
def test_an_acl_that_is_set_is_sent(
    moto: MotoServer, make_storage: MakeStorage, media_root: Path, acl: str, where: str
) -> None:
    """On moto: SeaweedFS keeps no ACLs."""
    storage = make_storage(
        "dual",
        provider="minio",
        s3={
            "bucket_name": moto.create_bucket(),
            "endpoint_url": moto.endpoint_url,
            "access_key": moto.access_key,
            "secret_key": moto.secret_key,
            where: acl if where == "default_acl" else {"ACL": acl},
        },
    )
    storage.save("a.txt", ContentFile(b"x"))
    (media_root / "b.txt").write_bytes(b"y")
    assert reconcile(storage.pair, storage.policy, "b.txt", now=time.time()).outcome is Outcome.UPLOADED
    client, bucket = client_of(storage)
    for name in ("a.txt", "b.txt"):
        grants = client.get_object_acl(Bucket=bucket, Key=key(storage, name))["Grants"]
        assert any(grant["Permission"] == "READ" for grant in grants) is (acl == "public-read")


def test_encryption_parameters_of_the_customer_are_sent_with_every_request(
    moto: MotoServer, make_storage: MakeStorage
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    sse = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "k" * 32}
    storage = make_storage(
        "dual",
        provider="minio",
        s3={
            "bucket_name": moto.create_bucket(),
            # A customer's key is sent over TLS only; nothing is sent here at all.
            "endpoint_url": "https://127.0.0.1:1",
            "object_parameters": {**sse, "CacheControl": "private"},
        },
    )
    client = storage.pair.s3._connected().client
    client.meta.events.register("before-call.s3", lambda model, params, **kwargs: sent.append((model.name, params)))
    with pytest.raises(FileNotFoundError, match="could not be asked"):
        storage.open("a.txt")
    storage.exists("a.txt")
    storage.save("a.txt", ContentFile(b"x"))
    storage.delete("a.txt")
    with_key = {name for name, params in sent if "x-amz-server-side-encryption-customer-key" in params["headers"]}
    assert with_key >= {"GetObject", "HeadObject", "PutObject"} & {name for name, _ in sent}
    assert {"GetObject", "HeadObject"} <= {name for name, _ in sent}
    assert not any(
        "cache-control" in {h.lower() for h in params["headers"]} for name, params in sent if name != "PutObject"
    )
