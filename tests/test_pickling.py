"""Credentials stay where they are configured: not in pickles, migrations, reprs, errors or logs."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from django.core.files.base import ContentFile
from django.core.files.storage.handler import StorageHandler
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.test import override_settings

from django_dualstorage.exceptions import S3Error
from django_dualstorage.redaction import is_secret, without_secrets
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import on_s3

BACKEND = "django_dualstorage.storage.DualWriteStorage"
SECRETS = ("AKIASECRETACCESS", "s3cr3t-key-of-mine", "t0ken-of-mine", "proxy-passw0rd", "sse-customer-k3y")


def secret_options() -> dict[str, Any]:
    return {
        "access_key": SECRETS[0],
        "secret_key": SECRETS[1],
        "security_token": SECRETS[2],
        "proxies": {"https": f"http://user:{SECRETS[3]}@proxy.example.com"},
        "object_parameters": {"SSECustomerKey": SECRETS[4]},
        "client_config": Config(proxies={"https": f"http://user:{SECRETS[3]}@proxy.example.com"}),
        "bucket_name": "bucket",
        "location": "media",
        "endpoint_url": "http://127.0.0.1:1",
        "region_name": "us-east-1",
    }


def revealed(text: object) -> list[str]:
    shown = text.decode("latin-1") if isinstance(text, bytes) else str(text)
    return [secret for secret in SECRETS if secret in shown]


@pytest.fixture(params=["flat", "nested"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DualWriteStorage]:
    s3 = secret_options()
    if request.param == "nested":
        s3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": s3}
    with override_settings(MEDIA_ROOT=str(tmp_path)):
        yield DualWriteStorage(base_url="/m/", phase="dual", s3=s3)


def test_a_pickle_has_no_secrets(storage: DualWriteStorage) -> None:
    storage.policy  # noqa: B018  used once, so that whatever is cached is there
    storage.url("a.txt")
    assert revealed(pickle.dumps(storage)) == []


def test_a_repr_has_no_secrets(storage: DualWriteStorage) -> None:
    url = storage.url("a.txt")
    for shown in (storage, storage.options, storage.pair, storage.pair.s3, storage.pair.s3._connected(), storage.known):
        assert revealed(repr(shown)) == []
    assert SECRETS[1] not in url


def test_a_migration_has_no_secrets(storage: DualWriteStorage) -> None:
    path, args, kwargs = storage.deconstruct()
    assert path == BACKEND
    assert args == ()
    assert revealed(repr(kwargs)) == []
    field = models.FileField(storage=storage)
    field.set_attributes_from_name("file")
    text, imports = MigrationWriter.serialize(field)
    assert revealed(text) == []
    assert "DualWriteStorage(" in text
    assert "'bucket_name': 'bucket'" in text
    again = eval(text, {**_modules(imports)})  # as a migration does
    assert again.storage.deconstruct() == storage.deconstruct()


def _modules(imports: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for line in imports:
        exec(line, names)
    return names


def test_an_error_and_the_log_have_no_secrets(storage: DualWriteStorage, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "django_dualstorage"):
        storage.save("a.txt", ContentFile(b"x"))
        with pytest.raises(S3Error) as failure:
            storage.open("only-there.txt")
    assert caplog.records
    assert revealed(caplog.text) == []
    assert revealed(repr(failure.value)) == []


def test_a_pickled_storage_works_where_it_is_configured(tmp_path: Path, s3_options: dict[str, Any]) -> None:
    options = {"phase": "dual", "provider": "seaweedfs", "s3": s3_options}
    entry = {"BACKEND": BACKEND, "OPTIONS": options}
    other = {"BACKEND": BACKEND, "OPTIONS": {**options, "phase": "mirror"}}
    broken = {"BACKEND": "nowhere.Storage", "OPTIONS": {"phase": "dual"}}
    django = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    configured: dict[str, Any] = {"default": django, "broken": broken, "other": other, "media": entry}
    with override_settings(MEDIA_ROOT=str(tmp_path), STORAGES=configured):
        storage = StorageHandler(configured)["media"]
        assert isinstance(storage, DualWriteStorage)
        assert storage.alias == "media"
        for again in (pickle.loads(pickle.dumps(storage)), copy.deepcopy(storage), copy.copy(storage)):
            assert type(again) is DualWriteStorage
            assert again.alias == "media"
            name = again.save("a.txt", ContentFile(b"x"))
            assert name in on_s3(storage)


def test_a_pickled_storage_of_no_alias_is_the_same_without_credentials(tmp_path: Path) -> None:
    storage = DualWriteStorage(str(tmp_path), "/m/", phase="s3", s3=secret_options())
    again = pickle.loads(pickle.dumps(storage))
    assert (again.location, again.base_url, again.options.phase) == (storage.location, "/m/", storage.options.phase)
    assert again.options.s3["bucket_name"] == "bucket"
    assert "secret_key" not in again.options.s3
    assert again.alias is None
    assert storage.alias is None


def test_the_alias_may_be_told(tmp_path: Path) -> None:
    assert DualWriteStorage(tmp_path, alias="told").alias == "told"


class SiteStorage(DualWriteStorage):
    """A site's own."""


def test_a_sites_own_is_pickled_as_such(tmp_path: Path) -> None:
    storage = SiteStorage(tmp_path, phase="mirror")
    again = pickle.loads(pickle.dumps(storage))
    assert type(again) is SiteStorage
    assert again.options.phase == storage.options.phase
    assert storage.deconstruct()[0] == f"{__name__}.SiteStorage"


@pytest.mark.parametrize(
    "option",
    [
        "access_key",
        "SECRET_KEY",
        "security_token",
        "db_password",
        "my_credentials",
        "cloudfront_key",
        "x_private_key_file",
    ],
)
def test_what_may_be_a_credential_counts_as_one(option: str) -> None:
    assert is_secret(option)
    assert without_secrets({"a": {option: 1, "b": [2]}, option: {}}) == {"a": {"b": [2]}}


@pytest.mark.parametrize("option", ["bucket_name", "location", "cloudfront_key_id", "querystring_auth", "phase", "s3"])
def test_what_is_none_may_be_written_down(option: str) -> None:
    assert not is_secret(option)
