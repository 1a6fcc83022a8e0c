"""Real servers, started once per run; a storage in any phase over them."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader
from django.core.files.storage import storages
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pytest_django import Settings

from django_dualstorage.storage import DualWriteStorage
from tests.support.lab import Lab
from tests.support.moto import MotoServer
from tests.support.proxy import FaultProxy
from tests.support.seaweed import SeaweedServer
from tests.support.site import Site, make_site

# A machine that has other work must not fail a test: neither what an example takes nor how long it is to make counts.
hypothesis_settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("untimed")

MakeStorage = Callable[..., DualWriteStorage]


@pytest.fixture(scope="session", autouse=True)
def _read_botocore_data_once() -> Iterator[None]:
    """Each storage makes a session of its own, which reads the description of S3 from disk anew: 0.1 s per test."""
    load_once = functools.lru_cache(maxsize=None)(JSONFileLoader().load_file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda self, path: load_once(path))
        yield


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """A real S3 server, authentication on."""
    with SeaweedServer() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_bucket(seaweed: SeaweedServer) -> str:
    """One bucket for all tests, since a new one costs time; tests stay apart by their prefix."""
    return seaweed.create_bucket()


@pytest.fixture(scope="session")
def moto() -> Iterator[MotoServer]:
    """An S3 server in this process, for what SeaweedFS lacks."""
    with MotoServer() as server:
        yield server


@pytest.fixture
def proxy(seaweed: SeaweedServer) -> Iterator[FaultProxy]:
    """A proxy before SeaweedFS that counts requests and makes them fail."""
    with FaultProxy(seaweed.endpoint_url) as running:
        yield running


@pytest.fixture(scope="module")
def lab(seaweed: SeaweedServer, seaweed_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One root, one bucket prefix and one breakable wire for a module; its tests take names of their own."""
    with FaultProxy(seaweed.endpoint_url) as wire:
        yield Lab(seaweed, seaweed_bucket, tmp_path_factory.mktemp("media"), wire)


@pytest.fixture
def prefix() -> str:
    """The S3 location of this test alone."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def media_root(tmp_path: Path) -> Path:
    """An empty MEDIA_ROOT."""
    root = tmp_path / "media"
    root.mkdir()
    return root


@pytest.fixture
def s3_options(seaweed: SeaweedServer, seaweed_bucket: str, prefix: str) -> dict[str, Any]:
    """OPTIONS["s3"] for SeaweedFS without a proxy."""
    return {
        "bucket_name": seaweed_bucket,
        "location": prefix,
        "endpoint_url": seaweed.endpoint_url,
        "access_key": seaweed.access_key,
        "secret_key": seaweed.secret_key,
        "region_name": "us-east-1",
    }


@pytest.fixture
def make_storage(media_root: Path, s3_options: dict[str, Any]) -> MakeStorage:
    """``make_storage(phase, **options)``: a storage on ``media_root`` and SeaweedFS; ``s3`` adds to its options."""

    def make(phase: str | None = "dual", *, s3: dict[str, Any] | None = None, **options: Any) -> DualWriteStorage:
        options = {
            "location": media_root,
            "base_url": "/media/",
            "provider": "seaweedfs",
            "alias": "default",
            **options,
        }
        return DualWriteStorage(phase=phase, s3={**s3_options, **(s3 or {})}, **options)

    return make


@pytest.fixture
def make_proxied(make_storage: MakeStorage, proxy: FaultProxy) -> MakeStorage:
    """The same over the proxy, impatient so that tests of silence are quick."""

    def make(phase: str | None = "dual", *, s3: dict[str, Any] | None = None, **options: Any) -> DualWriteStorage:
        options = {"connect_timeout": 0.5, "read_timeout": 0.5, "breaker_failures": 1000, **options}
        return make_storage(phase, s3={"endpoint_url": proxy.endpoint_url, **(s3 or {})}, **options)

    return make


@pytest.fixture
def default_options(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, media_root: Path, s3_options: dict[str, Any]
) -> dict[str, Any]:
    """OPTIONS of the default storage; a test changes them before it first uses the storage."""
    options: dict[str, Any] = {"location": str(media_root), "provider": "seaweedfs", "phase": "dual", "s3": s3_options}
    settings.STORAGES = {
        "default": {"BACKEND": "django_dualstorage.storage.DualWriteStorage", "OPTIONS": options},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
        "broken": {"BACKEND": "nowhere.Storage"},
    }
    # Django 4.2 drops the OPTIONS of the default storage where STORAGES is overridden.
    monkeypatch.setitem(storages.__dict__, "backends", settings.STORAGES)
    return options


@pytest.fixture
def default_storage(default_options: dict[str, Any]) -> DualWriteStorage:
    """The storage of STORAGES["default"], in phase dual."""
    storage = storages["default"]
    assert isinstance(storage, DualWriteStorage)
    return storage


@pytest.fixture
def site(
    tmp_path: Path, media_root: Path, make_storage: MakeStorage, s3_options: dict[str, Any], proxy: FaultProxy
) -> Site:
    """A project whose commands run as processes, over the proxy."""
    options = {
        "location": str(media_root),
        "provider": "seaweedfs",
        "phase": "dual",
        "read_timeout": 300,
        "s3": {**s3_options, "endpoint_url": proxy.endpoint_url},
    }
    return make_site(tmp_path, make_storage("dual"), options)
