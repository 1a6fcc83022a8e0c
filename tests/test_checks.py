"""System checks: each id is produced by what its section in the documentation says, and by nothing less."""

from __future__ import annotations

import functools
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from botocore.config import Config
from django.conf import settings as site_settings
from django.contrib.staticfiles.storage import ManifestFilesMixin
from django.core.checks import ERROR, WARNING, CheckMessage, Tags, run_checks
from django.core.files.storage import storages
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django.utils import timezone
from storages.backends.s3 import S3Storage

import django_dualstorage.checks
from django_dualstorage import records
from django_dualstorage.checks import check_database
from django_dualstorage.core.phases import Phase
from django_dualstorage.core.providers import PROVIDERS
from django_dualstorage.models import ProcessReport, StorageState
from django_dualstorage.storage import DualWriteStorage
from tests.support.proxy import BlackHole, Corrupt, FaultProxy, Refused, Status

if TYPE_CHECKING:
    from pytest_django import Settings

F = TypeVar("F", bound=Callable[..., None])

DUAL = "django_dualstorage.storage.DualWriteStorage"
ACCESS_KEY = "AKIASENTINEL"
SECRET_KEY = "sentinel-of-the-secret-key"
TOKEN = "sentinel-of-the-session-token"
PASSWORD = "sentinel-of-a-proxy's-password"
PEM = b"-----BEGIN\nsentinel-of-the-private-key\nEND-----"
BUCKET = {"bucket_name": "media-production"}
KEYS = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}

ROOT = Path(__file__).parents[1]
CHECKS = Path(django_dualstorage.checks.__file__).parent
IDS = sorted(
    {found for file in CHECKS.glob("*.py") for found in re.findall(r"dualstorage\.[EW]\d{3}", file.read_text())}
)

_produced: set[str] = set()
_seen: set[str] = set()


def set_storages(settings: Settings, entries: dict[str, Any]) -> None:
    """Set STORAGES. Django 4.2 drops the OPTIONS of the default storage where a test overrides the setting."""
    settings.STORAGES = entries
    storages.__dict__["backends"] = entries


def produces(check_id: str) -> Callable[[F], F]:
    """The test must have seen this id when it ends."""
    _produced.add(check_id)

    def decorate(test: F) -> F:
        @functools.wraps(test)
        def wrapper(*args: Any, **kwargs: Any) -> None:
            _seen.clear()
            test(*args, **kwargs)
            assert check_id in _seen

        return wrapper  # type: ignore[return-value]  # it takes what the test takes

    return decorate


def run(*, deploy: bool = False, databases: list[str] | None = None) -> dict[str, CheckMessage]:
    """Our messages by id, none of which may hold a secret."""
    messages = run_checks(tags=["dualstorage"], include_deployment_checks=deploy)
    if databases:
        # Django's own checks of that tag go on to connect to whatever is named.
        messages += check_database(databases=databases)
    for message in messages:
        _demand_sound(message)
        _seen.add(str(message.id))
    return {str(message.id): message for message in messages}


def _demand_sound(message: CheckMessage) -> None:
    assert message.id in IDS
    assert message.level == (ERROR if "E" in str(message.id) else WARNING)
    assert str(message.hint).endswith(f"See docs/checks.rst, {message.id}")
    text = f"{message}{message!r}"
    assert ACCESS_KEY not in text
    assert "sentinel-of" not in text


@pytest.fixture(autouse=True)
def _nobodys_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the keys and profiles of whoever runs the tests, and without an instance role."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "aws-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


Site = Callable[..., None]


@pytest.fixture
def site(settings: Settings, media_root: Path) -> Site:
    """``site(**options)`` configures STORAGES["default"] over a usable MEDIA_ROOT."""
    settings.MEDIA_ROOT = str(media_root)

    def configure(backend: Any = DUAL, **options: Any) -> None:
        static = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
        set_storages(settings, {"default": {"BACKEND": backend, "OPTIONS": options}, "staticfiles": static})

    return configure


@pytest.fixture
def two_sites(settings: Settings, media_root: Path) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """Two storages with these options; each has a folder and a bucket of its own unless they say otherwise."""
    settings.MEDIA_ROOT = str(media_root)

    def configure(one: dict[str, Any], two: dict[str, Any]) -> None:
        entries = {
            alias: {
                "BACKEND": DUAL,
                "OPTIONS": {"location": f"{media_root}/{alias}", "s3": {"bucket_name": alias, **KEYS}, **options},
            }
            for alias, options in (("default", one), ("invoices", two))
        }
        set_storages(settings, entries)

    return configure


# -- the checks themselves ---------------------------------------------------------------------------------------------


def test_every_id_is_produced_by_a_test() -> None:
    assert _produced == set(IDS)


def test_a_number_is_used_once() -> None:
    numbers = [check_id[-3:] for check_id in IDS]
    assert len(set(numbers)) == len(numbers)


def test_every_id_has_a_section_in_the_documentation_and_no_other_has() -> None:
    documentation = (ROOT / "docs" / "checks.rst").read_text()
    labels = re.findall(r"^\.\. _dualstorage-([ew]\d{3}):\n\n(\S+)", documentation, re.MULTILINE)
    assert sorted(title for _, title in labels) == IDS
    assert [f"dualstorage.{label.upper()}" for label, _ in labels] == [title for _, title in labels]


def test_a_well_configured_site_hears_nothing(site: Site) -> None:
    site(s3={**BUCKET, **KEYS})
    assert run() == {}


def test_a_site_that_does_not_use_the_storage_hears_nothing(settings: Settings) -> None:
    settings.STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
        "gone": {"BACKEND": "a.B"},
    }
    assert run() == {}
    assert run(deploy=True, databases=["default"]) == {}


def test_a_site_on_the_disk_alone_needs_no_s3(site: Site) -> None:
    site(phase="filesystem")
    assert run() == {}
    assert run(deploy=True) == {}


def test_an_id_can_be_silenced_as_in_django(site: Site, settings: Settings) -> None:
    site(s3=KEYS)
    with pytest.raises(SystemCheckError, match=r"dualstorage\.E006"):
        call_command("check", tags=["dualstorage"])
    settings.SILENCED_SYSTEM_CHECKS = ["dualstorage.E006"]
    call_command("check", tags=["dualstorage"])


@pytest.fixture
def listener() -> Iterator[tuple[int, list[object]]]:
    """A port that takes connections, says nothing and remembers who came."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                visitors.append(connection)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1], visitors
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_plain_check_asks_neither_s3_nor_the_instance_role(
    site: Site, listener: tuple[int, list[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, visitors = listener
    address = f"http://127.0.0.1:{port}"
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", address)
    site(s3={**BUCKET, "endpoint_url": address})
    assert set(run()) == {"dualstorage.W008"}
    assert visitors == []
    assert set(run(deploy=True)) == {"dualstorage.W008", "dualstorage.E027"}
    assert visitors != []


# -- the backend -------------------------------------------------------------------------------------------------------


@produces("dualstorage.E001")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"bucket_name": "media", **KEYS}, "no option 'bucket_name'"),
        ({"provider": "gcs"}, "'gcs' is not a provider"),
        ({"phase": "both"}, "The option 'phase' cannot be used: 'both' is not a phase"),
        ({"grace": "900"}, "'grace' must be int or float"),
        ({"provider": SECRET_KEY, "s3": KEYS}, "'***' is not a provider"),
    ],
)
def test_options_that_cannot_be_used(site: Site, options: dict[str, Any], told: str) -> None:
    site(**options)
    found = run()
    assert set(found) == {"dualstorage.E001"}
    assert told in found["dualstorage.E001"].msg
    assert found["dualstorage.E001"].obj == "STORAGES['default']"


@produces("dualstorage.E001")
def test_a_setting_that_cannot_be_used(site: Site, settings: Settings) -> None:
    settings.DUALSTORAGE_PHASE = "both"
    site(s3=BUCKET)
    assert "The setting DUALSTORAGE_PHASE cannot be used: 'both' is not a phase" in run()["dualstorage.E001"].msg


@produces("dualstorage.E005")
def test_an_address_that_is_none(site: Site, settings: Settings) -> None:
    settings.AWS_S3_ENDPOINT_URL = f"minio:{PASSWORD}@host"
    site(s3={**BUCKET, **KEYS})
    assert "AWS_S3_ENDPOINT_URL must be a URL" in run()["dualstorage.E005"].msg
    site(s3={**BUCKET, **KEYS, "endpoint_url": "minio"})
    assert "the option endpoint_url must be a URL" in run()["dualstorage.E005"].msg


@produces("dualstorage.W031")
@pytest.mark.parametrize(
    ("name", "told"), [("DUALSTORAGE_PHSE", "Is DUALSTORAGE_PHASE meant?"), ("DUALSTORAGE_XYZ", "docs/settings.rst")]
)
def test_a_setting_that_does_not_exist(site: Site, settings: Settings, name: str, told: str) -> None:
    setattr(settings, name, "mirror")
    site(s3={**BUCKET, **KEYS})
    found = run()
    assert set(found) == {"dualstorage.W031"}
    assert found["dualstorage.W031"].obj == name
    assert told in str(found["dualstorage.W031"].hint)


class Refusing(DualWriteStorage):
    """A site's subclass that fails in a way of its own."""

    def __init__(self, **options: Any) -> None:
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        site = [getattr(site_settings, name) for name in dir(site_settings) if name.startswith("AWS_")]
        raise RuntimeError(f"cannot work with {options}, {environment}, {site}")


@produces("dualstorage.E001")
def test_a_subclass_that_raises_an_error_with_all_its_options(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    settings.AWS_S3_SECRET_ACCESS_KEY = "sentinel-of-one-key"
    settings.AWS_SECRET_ACCESS_KEY = "sentinel-of-another-key"
    proxies = {"https": f"http://me:{PASSWORD}@proxy"}
    site(f"{__name__}.Refusing", s3={**BUCKET, **KEYS, "proxies": proxies, "cloudfront_key": PEM})
    assert "RuntimeError: cannot work with" in run()["dualstorage.E001"].msg


class Manifest(ManifestFilesMixin, DualWriteStorage):  # type: ignore[misc]  # what the check is about
    """A mistake."""


@produces("dualstorage.E002")
@pytest.mark.parametrize("alias", ["default", "staticfiles"])
def test_a_storage_with_a_manifest(settings: Settings, alias: str) -> None:
    set_storages(settings, {alias: {"BACKEND": f"{__name__}.Manifest", "OPTIONS": {"phase": "filesystem"}}})
    assert set(run(deploy=True)) == {"dualstorage.E002"}


@produces("dualstorage.E003")
@pytest.mark.parametrize("backend", [DUAL, DualWriteStorage])
def test_static_files_in_a_dual_storage(settings: Settings, backend: Any) -> None:
    set_storages(settings, {"staticfiles": {"BACKEND": backend}})
    assert set(run(deploy=True)) == {"dualstorage.E003"}


@produces("dualstorage.E004")
def test_a_database_that_is_not_in_databases(site: Site, settings: Settings) -> None:
    site(s3={**BUCKET, **KEYS})
    settings.DUALSTORAGE_DATABASE = "elsewhere"
    found = run()
    assert set(found) == {"dualstorage.E004"}
    assert "'default'" in str(found["dualstorage.E004"].hint)


# -- S3 ----------------------------------------------------------------------------------------------------------------


@produces("dualstorage.E005")
@pytest.mark.parametrize(
    ("s3", "told"),
    [
        ({"buckett": "media", **KEYS}, "Invalid setting 'buckett'"),
        ({**BUCKET, **KEYS, "location": "/media"}, "cannot begin with a leading slash"),
        ({**BUCKET, **KEYS, "session_profile": "work"}, "session_profile should not be provided"),
        ({**BUCKET, **KEYS, "cloudfront_key_id": "K1"}, "must be provided together"),
        ({**BUCKET, **KEYS, "endpoint_url": f"minio:{PASSWORD}@host"}, "begins with https://"),
        ({**BUCKET, **KEYS, "client_config": {"proxies": f"http://me:{PASSWORD}@proxy"}}, "AttributeError"),
        ({"BACKEND": "mysite.storage.MediaStorage"}, "cannot be imported"),
        ({"BACKEND": DUAL}, "not a subclass of storages.backends.s3.S3Storage"),
        ({"BACKEND": "storages.backends.s3.S3Storage", **BUCKET}, "bucket_name must be moved into its own OPTIONS"),
    ],
)
def test_an_s3_side_that_cannot_be_configured(site: Site, s3: dict[str, Any], told: str) -> None:
    site(s3=s3)
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E005"}
    assert told in found["dualstorage.E005"].msg


@produces("dualstorage.E006")
@pytest.mark.parametrize("phase", [None, "mirror", "dual", "dual-strict"])
def test_no_bucket(site: Site, phase: str | None) -> None:
    site(s3=KEYS, phase=phase)
    assert set(run(deploy=True)) == {"dualstorage.E006"}


def test_a_bucket_in_the_settings_of_django_storages(site: Site, settings: Settings) -> None:
    site()
    settings.AWS_STORAGE_BUCKET_NAME = "media"
    settings.AWS_ACCESS_KEY_ID = ACCESS_KEY
    settings.AWS_SECRET_ACCESS_KEY = SECRET_KEY
    assert run() == {}


@produces("dualstorage.E007")
@pytest.mark.parametrize(
    ("keys", "lacking"),
    [
        ({"access_key": ACCESS_KEY}, "without the secret access key."),
        ({"secret_key": SECRET_KEY}, "without the access key id."),
        ({"security_token": TOKEN}, "without the access key id and the secret access key."),
    ],
)
def test_half_of_the_credentials_in_options(site: Site, keys: dict[str, str], lacking: str) -> None:
    site(s3={**BUCKET, **keys})
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E007"}
    assert lacking in found["dualstorage.E007"].msg


@produces("dualstorage.E007")
def test_half_of_the_credentials_in_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    site(s3=BUCKET)
    assert set(run()) == {"dualstorage.E007"}


@produces("dualstorage.E007")
def test_half_in_the_environment_where_the_setting_is_none(
    site: Site, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AWS_ACCESS_KEY_ID = settings.AWS_SECRET_ACCESS_KEY = None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    site(s3=BUCKET)
    assert set(run()) == {"dualstorage.E007"}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert run() == {}


def test_half_in_options_and_half_in_the_environment_is_whole(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    site(s3={**BUCKET, "access_key": ACCESS_KEY})
    assert run() == {}


@produces("dualstorage.W008")
def test_no_credentials_anywhere(site: Site) -> None:
    site(s3=BUCKET)
    assert set(run()) == {"dualstorage.W008"}


@produces("dualstorage.W008")
def test_a_profile_without_credentials(site: Site, tmp_path: Path) -> None:
    (tmp_path / "aws-config").write_text("[default]\nregion = eu-central-1\n")
    site(s3=BUCKET)
    assert set(run()) == {"dualstorage.W008"}


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_SESSION_TOKEN": TOKEN},
        {"AWS_S3_ACCESS_KEY_ID": ACCESS_KEY, "AWS_S3_SECRET_ACCESS_KEY": SECRET_KEY},
        {"AWS_PROFILE": "work"},
        {"AWS_S3_SESSION_PROFILE": "work"},
        {"AWS_PROFILE": "role"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
        {"AWS_ROLE_ARN": "arn:aws:iam::1:role/media", "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token"},
    ],
    ids=lambda environment: "+".join(environment),
)
def test_credentials_that_the_client_library_finds(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    (tmp_path / "aws-credentials").write_text(
        f"[work]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    (tmp_path / "aws-config").write_text(
        "[profile role]\nrole_arn = arn:aws:iam::1:role/media\nsource_profile = work\n"
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    site(s3=BUCKET)
    assert run() == {}


def test_the_default_profile_counts(site: Site, tmp_path: Path) -> None:
    (tmp_path / "aws-credentials").write_text(
        f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    )
    site(s3=BUCKET)
    assert run() == {}


class AssumesRole(S3Storage):  # type: ignore[misc]  # untyped library
    """A site's S3Storage that finds its credentials in a way of its own, and has its own idea of overwriting."""

    file_overwrite = True

    def _create_session(self) -> Any:
        raise AssertionError("a plain check must not ask for credentials")


def test_a_subclass_with_a_session_of_its_own_needs_no_credentials_here(site: Site) -> None:
    site(allow_overwrite=True, s3={"BACKEND": f"{__name__}.AssumesRole", "OPTIONS": BUCKET})
    assert run() == {}


@produces("dualstorage.E009")
@pytest.mark.parametrize("keys", [{}, KEYS])
def test_a_profile_in_the_environment_that_does_not_exist(
    site: Site, monkeypatch: pytest.MonkeyPatch, keys: dict[str, str]
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "gone")
    site(s3={**BUCKET, **keys})
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E009"}
    assert "(gone)" in found["dualstorage.E009"].msg


@produces("dualstorage.E009")
def test_a_profile_in_options_that_does_not_exist(site: Site) -> None:
    site(s3={**BUCKET, "session_profile": "gone"})
    assert set(run()) == {"dualstorage.E009"}


@produces("dualstorage.W010")
@pytest.mark.parametrize("s3", [{"default_acl": "private"}, {"object_parameters": {"ACL": "private"}}])
@pytest.mark.parametrize("provider", ["aws", "r2"])
def test_an_acl_where_new_buckets_refuse_one(site: Site, provider: str, s3: dict[str, Any]) -> None:
    site(provider=provider, s3={**BUCKET, **KEYS, "endpoint_url": "https://s3.example.com", **s3})
    found = run()
    assert set(found) == {"dualstorage.W010"}
    assert "'private'" in found["dualstorage.W010"].msg


def test_an_acl_where_it_is_taken(site: Site) -> None:
    site(provider="digitalocean", s3={**BUCKET, **KEYS, "region_name": "sgp1", "default_acl": "private"})
    assert run() == {}


@produces("dualstorage.E011")
def test_gzip(site: Site, settings: Settings) -> None:
    site(s3={**BUCKET, **KEYS})
    settings.AWS_IS_GZIPPED = True
    assert set(run(deploy=True)) == {"dualstorage.E011"}


@produces("dualstorage.W012")
@pytest.mark.parametrize(("allow", "on_s3"), [(False, True), (True, False)])
def test_overwriting_allowed_on_one_side_only(site: Site, allow: bool, on_s3: bool) -> None:
    site(allow_overwrite=allow, s3={**BUCKET, **KEYS, "file_overwrite": on_s3})
    assert set(run()) == {"dualstorage.W012"}


@produces("dualstorage.W012")
def test_overwriting_in_the_settings_of_django_storages(site: Site, settings: Settings) -> None:
    site(s3={**BUCKET, **KEYS})
    settings.AWS_S3_FILE_OVERWRITE = True
    assert set(run()) == {"dualstorage.W012"}


@produces("dualstorage.W012")
def test_overwriting_in_the_class_of_the_site(site: Site) -> None:
    site(s3={"BACKEND": f"{__name__}.AssumesRole", "OPTIONS": BUCKET})
    assert set(run()) == {"dualstorage.W012"}


@pytest.mark.parametrize("both", [False, True])
def test_overwriting_set_alike_on_both_sides(site: Site, both: bool) -> None:
    site(
        allow_overwrite=both,
        s3={"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {**BUCKET, **KEYS, "file_overwrite": both}},
    )
    assert run() == {}


@produces("dualstorage.W013")
@pytest.mark.parametrize(
    "s3",
    [
        {"signature_version": "s3"},
        {"signature_version": "s3-query"},
        {"client_config": Config(signature_version="s3")},
    ],
)
def test_an_old_signature(site: Site, s3: dict[str, Any]) -> None:
    site(s3={**BUCKET, **KEYS, **s3})
    assert set(run()) == {"dualstorage.W013"}


@produces("dualstorage.E029")
@pytest.mark.parametrize("provider", [name for name in PROVIDERS if name != "aws"])
def test_a_service_without_its_address(site: Site, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    site(provider=provider, s3={**BUCKET, **KEYS})
    assert set(run()) == {"dualstorage.E029"}
    assert provider in run()["dualstorage.E029"].msg
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    assert run() == {}


@pytest.mark.parametrize(("provider", "known"), [("digitalocean", True), ("b2", True), ("minio", False)])
def test_a_service_whose_address_follows_from_the_region(site: Site, provider: str, known: bool) -> None:
    site(provider=provider, s3={**BUCKET, **KEYS, "region_name": "sgp1"})
    assert set(run()) == (set() if known else {"dualstorage.E029"})


@produces("dualstorage.W014")
@pytest.mark.parametrize(
    ("endpoint", "provider"),
    [
        ("https://sgp1.digitaloceanspaces.com", "digitalocean"),
        (f"https://me:{PASSWORD.replace(' ', '')}@0123.r2.cloudflarestorage.com", "r2"),
        ("https://s3.us-west-004.backblazeb2.com", "b2"),
    ],
)
def test_an_endpoint_of_another_provider(site: Site, endpoint: str, provider: str) -> None:
    site(s3={**BUCKET, **KEYS, "endpoint_url": endpoint})
    found = run()
    assert set(found) == {"dualstorage.W014"}
    assert repr(provider) in str(found["dualstorage.W014"].hint)
    site(provider=provider, s3={**BUCKET, **KEYS, "endpoint_url": endpoint})
    assert run() == {}


@produces("dualstorage.E015")
@pytest.mark.parametrize("phase", ["s3-primary", "s3"])
@pytest.mark.parametrize(
    ("s3", "why"),
    [
        (KEYS, "dualstorage.E006"),
        ({**BUCKET, "access_key": ACCESS_KEY}, "dualstorage.E007"),
        ({**BUCKET, "buckett": "x"}, "dualstorage.E005"),
    ],
)
def test_a_pinned_phase_that_needs_s3_without_usable_s3(site: Site, phase: str, s3: dict[str, Any], why: str) -> None:
    site(phase=phase, s3=s3)
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E015", why}
    assert f"pinned to {phase}," in found["dualstorage.E015"].msg


def test_a_pinned_phase_that_needs_s3_with_a_warning_only(site: Site) -> None:
    site(phase="s3", s3=BUCKET)
    assert set(run()) == {"dualstorage.W008"}


# -- MEDIA_ROOT --------------------------------------------------------------------------------------------------------


@produces("dualstorage.E016")
@pytest.mark.parametrize("where", ["setting", "option"])
def test_an_empty_media_root(
    site: Site, settings: Settings, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    site(s3={**BUCKET, **KEYS}, **({"location": ""} if where == "option" else {}))
    if where == "setting":
        settings.MEDIA_ROOT = ""
    assert set(run()) == {"dualstorage.E016"}
    assert not (tmp_path / ".dualstorage").exists()


@produces("dualstorage.E017")
@pytest.mark.parametrize("static", [".", "static", ".."])
def test_a_static_root_that_is_inside_or_around_media_root(
    site: Site, settings: Settings, media_root: Path, static: str
) -> None:
    settings.STATIC_ROOT = media_root / static
    site(s3={**BUCKET, **KEYS})
    assert set(run()) == {"dualstorage.E017"}


@produces("dualstorage.E017")
def test_a_static_root_that_is_media_root_by_a_link(
    site: Site, settings: Settings, media_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "static").symlink_to(media_root)
    settings.STATIC_ROOT = str(tmp_path / "static")
    site(s3={**BUCKET, **KEYS})
    assert set(run()) == {"dualstorage.E017"}


@pytest.mark.parametrize("static", ["static", "media-static", "med"])
def test_a_static_root_beside_media_root(site: Site, settings: Settings, tmp_path: Path, static: str) -> None:
    settings.STATIC_ROOT = tmp_path / static
    site(s3={**BUCKET, **KEYS})
    assert run() == {}


@produces("dualstorage.W018")
def test_a_media_root_that_is_not_there_is_not_made(site: Site, settings: Settings, tmp_path: Path) -> None:
    settings.MEDIA_ROOT = tmp_path / "volume" / "media"
    site(s3={**BUCKET, **KEYS})
    assert set(run()) == {"dualstorage.W018"}
    assert not (tmp_path / "volume").exists()


@produces("dualstorage.W019")
def test_a_filesystem_without_nanoseconds(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = os.utime

    def coarse(path: Any, times: None = None, *, ns: tuple[int, int] = (0, 0)) -> None:
        exact(path, ns=(ns[0] // 10**9 * 10**9, ns[1] // 10**9 * 10**9))

    site(s3={**BUCKET, **KEYS})
    monkeypatch.setattr(os, "utime", coarse)
    assert set(run()) == {"dualstorage.W019"}


@produces("dualstorage.W020")
def test_a_journal_that_cannot_be_made(site: Site, media_root: Path) -> None:
    (media_root / ".dualstorage").write_text("a file in its place")
    site(s3={**BUCKET, **KEYS})
    found = run()
    assert set(found) == {"dualstorage.W020"}
    assert str(media_root / ".dualstorage") in found["dualstorage.W020"].msg


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_root_makes_the_journal_for_the_owner_of_media_root(site: Site, media_root: Path) -> None:
    os.chown(media_root, 65534, 65534)
    site(s3={**BUCKET, **KEYS})
    assert run() == {}
    assert (media_root / ".dualstorage").stat().st_uid == 65534


def test_another_user_does_not_make_the_journal(site: Site, media_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    site(s3={**BUCKET, **KEYS})
    assert run() == {}
    assert not (media_root / ".dualstorage").exists()


def test_the_disk_is_left_alone_where_the_pinned_phase_does_not_use_it(site: Site, settings: Settings) -> None:
    settings.MEDIA_ROOT = ""
    site(phase="s3", s3={**BUCKET, **KEYS})
    assert run() == {}


# -- two storages ------------------------------------------------------------------------------------------------------

TwoSites = Callable[[dict[str, Any], dict[str, Any]], None]


@produces("dualstorage.E021")
@pytest.mark.parametrize(("one", "two"), [("", ""), ("", "invoices"), ("uploads/old", "uploads")])
def test_two_storages_in_one_folder(two_sites: TwoSites, media_root: Path, one: str, two: str) -> None:
    for folder in (one, two):
        (media_root / folder).mkdir(parents=True, exist_ok=True)
    two_sites({"location": f"{media_root}/{one}"}, {"location": f"{media_root}/{two}"})
    found = run()
    assert set(found) == {"dualstorage.E021"}
    assert found["dualstorage.E021"].obj == "STORAGES['invoices']"
    assert "STORAGES['default']" in found["dualstorage.E021"].msg


@produces("dualstorage.E022")
@pytest.mark.parametrize(("one", "two"), [("", ""), ("", "media"), ("media", "media/"), ("media/old", "media")])
def test_two_storages_below_one_prefix(two_sites: TwoSites, media_root: Path, one: str, two: str) -> None:
    for alias in ("default", "invoices"):
        (media_root / alias).mkdir()
    two_sites({"s3": {**BUCKET, **KEYS, "location": one}}, {"s3": {**BUCKET, **KEYS, "location": two}})
    assert set(run()) == {"dualstorage.E022"}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"location": "media"}, {"location": "media-old"}),
        ({"endpoint_url": "https://one.example"}, {"endpoint_url": "https://two.example"}),
        ({"bucket_name": "one"}, {"bucket_name": "two"}),
    ],
)
def test_two_storages_that_keep_apart(
    two_sites: TwoSites, media_root: Path, one: dict[str, str], two: dict[str, str]
) -> None:
    for alias in ("default", "invoices"):
        (media_root / alias).mkdir()
    two_sites({"s3": {**BUCKET, **KEYS, **one}}, {"s3": {**BUCKET, **KEYS, **two}})
    assert run() == {}


# -- the database ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_database_is_asked_only_on_request(site: Site) -> None:
    # Without the tag of the others: since Django 6.1 a tag alone lets the checks that it names ask every database.
    assert set(getattr(check_database, "tags", ())) == {Tags.database}
    StorageState.objects.create(alias="default", phase="nonsense")
    site(s3={**BUCKET, **KEYS})
    assert run() == {}
    assert run(databases=["other"]) == {}
    assert run(databases=["default"]) != {}


@pytest.mark.django_db
def test_a_fresh_database(site: Site) -> None:
    site(s3={**BUCKET, **KEYS})
    assert run(databases=["default"]) == {}


@pytest.mark.django_db(transaction=True)
@produces("dualstorage.W023")
def test_migrations_that_are_not_applied(site: Site) -> None:
    site(s3={**BUCKET, **KEYS})
    call_command("migrate", "dualstorage", "zero", verbosity=0)
    try:
        found = run(databases=["default"])
        with override_settings(MIGRATION_MODULES={"dualstorage": None}):
            assert set(run(databases=["default"])) == {"dualstorage.W023"}
    finally:
        # A warning only: an error would keep migrate from running, which checks first.
        call_command("migrate", "dualstorage", verbosity=0)
    assert set(found) == {"dualstorage.W023"}
    assert "migrate dualstorage." in str(found["dualstorage.W023"].hint)
    assert run(databases=["default"]) == {}


@pytest.mark.django_db
@produces("dualstorage.E024")
def test_the_tag_of_the_database_finds_what_it_says(site: Site) -> None:
    StorageState.objects.create(alias="default", phase="nonsense")
    site(s3={**BUCKET, **KEYS})
    tags = ["dualstorage", Tags.database]
    _seen.update(str(found.id) for found in run_checks(tags=tags, databases=["default"]))
    assert "dualstorage.E024" not in {found.id for found in run_checks(tags=["dualstorage"])}


@pytest.mark.django_db
def test_tables_made_without_our_migrations(site: Site) -> None:
    site(s3={**BUCKET, **KEYS})
    with override_settings(MIGRATION_MODULES={"dualstorage": None}):
        assert run(databases=["default"]) == {}


@pytest.mark.django_db
@produces("dualstorage.E024")
def test_a_row_that_cannot_be_understood(site: Site) -> None:
    StorageState.objects.create(alias="default", phase="nonsense")
    site(s3={**BUCKET, **KEYS})
    found = run(databases=["default"])
    assert set(found) == {"dualstorage.E024"}
    assert "'nonsense' is not a phase" in found["dualstorage.E024"].msg


def _report(host: str, volume: str, age: timedelta = timedelta()) -> None:
    ProcessReport.objects.create(
        alias="default", host=host, pid=1, phase="dual", volume_id=volume, last_seen=timezone.now() - age
    )


@pytest.mark.django_db
@produces("dualstorage.E025")
@pytest.mark.parametrize("phase", [None, "filesystem", "mirror", "dual-strict"])
def test_separate_volumes_while_the_disk_is_the_truth(site: Site, phase: str | None) -> None:
    _report("web-1", "aaaa")
    _report("web-2", "bbbb", timedelta(minutes=30))
    site(phase=phase, s3={**BUCKET, **KEYS})
    found = run(databases=["default"])
    assert set(found) == {"dualstorage.E025"}
    assert "aaaa: web-1 pid 1 0 min ago; bbbb: web-2 pid 1 30 min ago" in found["dualstorage.E025"].msg
    (command,) = re.findall(r'shell -c "(.+)"', str(found["dualstorage.E025"].hint))
    exec(command.replace("VOLUME", "bbbb"), {})
    assert run(databases=["default"]) == {}


@pytest.mark.django_db
def test_separate_volumes_while_s3_is_the_truth(site: Site) -> None:
    _report("web-1", "aaaa")
    _report("web-2", "bbbb")
    StorageState.objects.create(alias="default", phase="s3-primary")
    site(s3={**BUCKET, **KEYS})
    assert run(databases=["default"]) == {}


@pytest.mark.django_db
def test_one_volume_now_and_another_one_yesterday(site: Site) -> None:
    _report("web-1", "aaaa")
    _report("web-2", "aaaa")
    _report("web-3", "bbbb", timedelta(days=1))
    site(s3={**BUCKET, **KEYS})
    assert run(databases=["default"]) == {}


@pytest.mark.django_db
@produces("dualstorage.W026")
def test_a_pin_that_differs_from_the_recorded_phase(site: Site) -> None:
    StorageState.objects.create(alias="default", phase="s3")
    site(phase="filesystem", s3={**BUCKET, **KEYS})
    found = run(databases=["default"])
    assert set(found) == {"dualstorage.W026"}
    assert "a leap hides files" in str(found["dualstorage.W026"].hint)
    site(phase="s3-primary", s3={**BUCKET, **KEYS})
    assert "this is one step" in str(run(databases=["default"])["dualstorage.W026"].hint)
    site(phase="s3", s3={**BUCKET, **KEYS})
    assert run(databases=["default"]) == {}


@pytest.mark.django_db
@produces("dualstorage.W030")
def test_a_backfill_of_another_place(site: Site, settings: Settings) -> None:
    def message(**s3: Any) -> str | None:
        site(s3={**BUCKET, **KEYS, **s3})
        return str(found[0].msg) if (found := list(run(databases=["default"]).values())) else None

    assert message() is None
    place = DualWriteStorage(s3={**BUCKET, **KEYS}).place
    records.set_certified("default", complete=True, phase=Phase.DUAL, volume_id="", place=place)
    assert message() is None
    assert message(location="elsewhere/") == (
        "The last complete backfill was of s3:///media-production/, and the S3 side is at "
        "s3:///media-production/elsewhere now."
    )
    assert message(endpoint_url=f"https://me:{PASSWORD}@s3.example.com") is not None


@pytest.mark.django_db
def test_asking_the_database_leaves_nothing_in_it_and_nothing_on_the_disk(
    site: Site, settings: Settings, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path / "not-mounted-here"
    site(s3={**BUCKET, **KEYS})
    # Tests whose storages use the one in-memory connection outside of a transaction leave their reports behind.
    before = set(ProcessReport.objects.values_list("pk", "last_seen"))
    states = set(StorageState.objects.values_list("pk"))
    assert set(run(databases=["default"])) == {"dualstorage.W018"}
    assert set(ProcessReport.objects.values_list("pk", "last_seen")) == before
    assert set(StorageState.objects.values_list("pk")) == states
    assert not (tmp_path / "not-mounted-here").exists()


# -- live --------------------------------------------------------------------------------------------------------------


def test_a_server_that_does_all_we_need(site: Site, proxy: FaultProxy, s3_options: dict[str, Any], prefix: str) -> None:
    site(provider="seaweedfs", s3={**s3_options, "endpoint_url": proxy.endpoint_url})
    assert run() == {}
    assert proxy.requests == []
    assert run(deploy=True) == {}
    assert proxy.count("PUT", f"^{prefix}/") > 0
    assert {request.key for request in proxy.seen("PUT")} == {request.key for request in proxy.seen("DELETE")}


@pytest.mark.django_db
def test_the_live_check_leaves_nothing_on_the_disk(
    site: Site, s3_options: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    settings.MEDIA_ROOT = tmp_path / "not-mounted-here"
    site(phase="filesystem", provider="seaweedfs", s3=s3_options)
    assert set(run(deploy=True)) == {"dualstorage.W018"}
    assert not (tmp_path / "not-mounted-here").exists()


@produces("dualstorage.E027")
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bucket_name": "nobodys-bucket"}, "Create the bucket"),
        ({"access_key": ACCESS_KEY}, "does not know these keys"),
        ({"secret_key": SECRET_KEY}, "does not know these keys"),
    ],
)
def test_a_server_that_refuses(site: Site, s3_options: dict[str, Any], wrong: dict[str, str], told: str) -> None:
    site(provider="seaweedfs", s3={**s3_options, **wrong})
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E027"}
    assert told in str(found["dualstorage.E027"].hint)


@produces("dualstorage.E027")
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Status(403, "AccessDenied"), "Allow s3:PutObject"),
        (Status(400, "AccessControlListNotSupported"), "Remove AWS_DEFAULT_ACL"),
        (Status(403, "RequestTimeTooSkewed"), "clock"),
        (Status(400, "SomethingElse"), "look up what"),
        (Status(503), "S3 answered, so"),
        (Refused(), "Check the endpoint"),
        (BlackHole(), "Check the endpoint"),
    ],
    ids=str,
)
def test_a_server_that_fails(site: Site, proxy: FaultProxy, s3_options: dict[str, Any], fault: Any, told: str) -> None:
    proxy.fail(fault, times=None)
    site(provider="seaweedfs", read_timeout=0.3, s3={**s3_options, "endpoint_url": proxy.endpoint_url})
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E027"}
    assert told in str(found["dualstorage.E027"].hint)


@produces("dualstorage.E027")
def test_a_server_that_gives_back_other_bytes(site: Site, proxy: FaultProxy, s3_options: dict[str, Any]) -> None:
    proxy.fail(Corrupt(), method="GET", times=None)
    site(provider="seaweedfs", s3={**s3_options, "endpoint_url": proxy.endpoint_url})
    found = run(deploy=True)
    assert "came back changed" in found["dualstorage.E027"].msg
    assert proxy.count("DELETE") == 1


@produces("dualstorage.E027")
def test_a_configuration_that_the_client_library_refuses(site: Site) -> None:
    site(s3={**BUCKET, **KEYS, "region_name": f"{SECRET_KEY} is no region"})
    found = run(deploy=True)
    assert set(found) == {"dualstorage.E027"}
    assert "***" in found["dualstorage.E027"].msg


@produces("dualstorage.W028")
def test_a_server_without_conditional_requests(site: Site, proxy: FaultProxy, s3_options: dict[str, Any]) -> None:
    proxy.fail(
        Status(501, "NotImplemented"), when=lambda request: "if-none-match" in request.headers, method="PUT", times=None
    )
    site(provider="seaweedfs", s3={**s3_options, "endpoint_url": proxy.endpoint_url})
    assert set(run(deploy=True)) == {"dualstorage.W028"}


@produces("dualstorage.E027")
def test_the_acl_of_an_upload_is_tried(site: Site, proxy: FaultProxy, s3_options: dict[str, Any]) -> None:
    refusal = Status(400, "AccessControlListNotSupported")
    proxy.fail(refusal, when=lambda request: "x-amz-acl" in request.headers, times=None)
    site(s3={**s3_options, "endpoint_url": proxy.endpoint_url, "default_acl": "private"})
    found = run(deploy=True)
    assert set(found) == {"dualstorage.W010", "dualstorage.E027"}
    assert "takes no ACL" in str(found["dualstorage.E027"].hint)
