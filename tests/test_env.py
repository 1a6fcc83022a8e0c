"""The STORAGES entry from the environment, and a site that has no S3 at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage import s3storage
from django_dualstorage.checks import check_s3
from django_dualstorage.core.phases import LADDER, Phase
from django_dualstorage.env import storage_from_env
from django_dualstorage.exceptions import ConfigurationError
from django_dualstorage.storage import DualWriteStorage
from tests.support.seaweed import SeaweedServer

if TYPE_CHECKING:
    from pytest_django import Settings

SECRET = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET}
AWS = {"USE_S3": "1", **KEYS, "AWS_STORAGE_BUCKET_NAME": "obcms-media"}
SPACES = {**AWS, "USE_DO_SPACES": "1", "AWS_S3_REGION_NAME": "sgp1"}
MINIO = {**AWS, "USE_MINIO": "1", "MINIO_ENDPOINT_URL": "https://minio.example.com"}


def configure(settings: Settings, entries: dict[str, Any]) -> None:
    """Set STORAGES. Django 4.2 drops the OPTIONS of the default storage where a test overrides the setting."""
    settings.STORAGES = entries
    storages.__dict__["backends"] = entries


def options(environ: dict[str, str]) -> dict[str, Any]:
    """OPTIONS of the entry."""
    entry = storage_from_env(environ)
    assert entry["BACKEND"] == "django_dualstorage.storage.DualWriteStorage"
    found: dict[str, Any] = entry["OPTIONS"]
    return found


def s3(environ: dict[str, str]) -> dict[str, Any]:
    """OPTIONS["s3"] of the entry."""
    found: dict[str, Any] = options(environ)["s3"]
    return found


# -- whole environments ------------------------------------------------------------------------------------------------


def test_an_empty_environment_is_the_disk_alone() -> None:
    found = options({})
    assert found["phase"] == "filesystem"
    assert "bucket_name" not in found["s3"]


def test_amazon() -> None:
    assert options({**AWS, "AWS_S3_REGION_NAME": "ap-southeast-1", "AWS_SESSION_TOKEN": "token"}) == {
        "provider": "aws",
        "s3": {
            "access_key": KEYS["AWS_ACCESS_KEY_ID"],
            "secret_key": SECRET,
            "security_token": "token",
            "bucket_name": "obcms-media",
            "region_name": "ap-southeast-1",
            "location": "media",
            "use_ssl": True,
            "object_parameters": {"CacheControl": "max-age=86400"},
            "default_acl": None,
            "querystring_auth": True,
            "querystring_expire": 3600,
            "signature_version": "s3v4",
            "file_overwrite": False,
        },
    }


def test_digitalocean() -> None:
    found = options(SPACES)
    assert found["provider"] == "digitalocean"
    assert found["s3"]["endpoint_url"] == "https://sgp1.digitaloceanspaces.com"


def test_minio() -> None:
    found = options(MINIO)
    assert found["provider"] == "minio"
    assert found["s3"]["endpoint_url"] == "https://minio.example.com"
    assert found["s3"]["use_ssl"] is True
    assert found["s3"]["region_name"] == "us-east-1"


@pytest.mark.parametrize(("ssl", "url"), [("0", "http://minio:9000"), ("1", "https://minio:9000")])
def test_minio_with_an_address_that_leaves_the_scheme_to_the_flag(ssl: str, url: str) -> None:
    found = s3({**MINIO, "MINIO_ENDPOINT_URL": "minio:9000", "MINIO_USE_SSL": ssl})
    assert found["endpoint_url"] == url
    assert found["use_ssl"] is (ssl == "1")


@pytest.mark.parametrize("environ", [SPACES, {**AWS, "USE_MINIO": "1"}])
def test_an_endpoint_given_outright(environ: dict[str, str]) -> None:
    assert s3({**environ, "AWS_S3_ENDPOINT_URL": "http://10.0.0.1:9000"})["endpoint_url"] == "http://10.0.0.1:9000"


@pytest.mark.parametrize(
    ("endpoint", "provider"),
    [
        ("https://s3.eu-central-1.amazonaws.com", "aws"),
        ("https://bucket.vpce-1.s3.cn-north-1.vpce.amazonaws.com.cn", "aws"),
        ("https://s3.example.com", "generic"),
        ("https://amazonaws.com.example.com", "generic"),
    ],
)
def test_an_endpoint_tells_the_provider(endpoint: str, provider: str) -> None:
    assert options({**AWS, "AWS_S3_ENDPOINT_URL": endpoint})["provider"] == provider


def test_the_optional_variables() -> None:
    found = s3(
        {**AWS, "AWS_S3_CUSTOM_DOMAIN": "cdn.example.com", "AWS_QUERYSTRING_EXPIRE": "60", "AWS_LOCATION": "a/b/"}
    )
    assert found["custom_domain"] == "cdn.example.com"
    assert found["querystring_expire"] == 60
    assert found["location"] == "a/b"


def test_a_slash_is_the_top_of_the_bucket() -> None:
    assert s3({**AWS, "AWS_LOCATION": "/"})["location"] == ""


def test_an_empty_variable_counts_as_unset() -> None:
    empty = dict.fromkeys(
        ["USE_DO_SPACES", "AWS_SESSION_TOKEN", "AWS_LOCATION", "AWS_S3_ENDPOINT_URL", "DUALSTORAGE_PHASE"], " "
    )
    assert options({**AWS, **empty}) == options(AWS)


# -- flags and phases --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["1", "true", "True", "yes", "ON", " 1 "])
def test_flags_that_are_on(value: str) -> None:
    assert "phase" not in options({**AWS, "USE_S3": value})


@pytest.mark.parametrize("value", ["0", "false", "False", "no", "OFF", ""])
def test_flags_that_are_off(value: str) -> None:
    assert options({**AWS, "USE_S3": value})["phase"] == "filesystem"


@pytest.mark.parametrize("name", ["USE_S3", "USE_DO_SPACES", "USE_MINIO", "MINIO_USE_SSL"])
def test_a_flag_that_is_neither(name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name} is 'maybe'; it can be 1, true"):
        storage_from_env({**MINIO, name: "maybe"})


@pytest.mark.parametrize("phase", LADDER)
def test_the_phase_can_be_pinned(phase: Phase) -> None:
    assert options({**AWS, "DUALSTORAGE_PHASE": phase.value})["phase"] == phase.value


def test_a_phase_that_does_not_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"DUALSTORAGE_PHASE cannot be used: 'both' is not a phase"):
        storage_from_env({**AWS, "DUALSTORAGE_PHASE": "both"})


@pytest.mark.parametrize("phase", [phase for phase in LADDER if phase is not Phase.FILESYSTEM])
def test_a_phase_that_contradicts_use_s3(phase: Phase) -> None:
    with pytest.raises(ConfigurationError, match=rf"USE_S3 is off.* DUALSTORAGE_PHASE is '{phase}'"):
        storage_from_env({"DUALSTORAGE_PHASE": phase.value})


def test_a_phase_that_agrees_with_use_s3() -> None:
    assert options({"USE_S3": "0", "DUALSTORAGE_PHASE": "filesystem"})["phase"] == "filesystem"


# -- what is missing or wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({"USE_S3": "1"}, "AWS_STORAGE_BUCKET_NAME"),
        ({"USE_S3": "1", "AWS_ACCESS_KEY_ID": "AKIA"}, "AWS_SECRET_ACCESS_KEY, AWS_STORAGE_BUCKET_NAME"),
        ({**AWS, "AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID"),
        (
            {"USE_S3": "1", "USE_DO_SPACES": "1"},
            "AWS_ACCESS_KEY_ID, AWS_S3_REGION_NAME, AWS_SECRET_ACCESS_KEY, AWS_STORAGE_BUCKET_NAME",
        ),
        ({**AWS, "USE_MINIO": "1"}, "MINIO_ENDPOINT_URL"),
        ({"USE_MINIO": "1", "AWS_STORAGE_BUCKET_NAME": "media"}, "MINIO_ENDPOINT_URL"),
    ],
)
def test_everything_that_is_missing_is_named(environ: dict[str, str], missing: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"The environment lacks {missing}\."):
        storage_from_env(environ)


def test_amazon_may_give_a_machine_its_rights_without_keys() -> None:
    found = s3({"USE_S3": "1", "AWS_STORAGE_BUCKET_NAME": "media"})
    assert "access_key" not in found
    assert "secret_key" not in found


def test_what_is_missing_does_not_matter_while_s3_is_off() -> None:
    assert options({"USE_MINIO": "1"})["phase"] == "filesystem"
    assert options({"AWS_STORAGE_BUCKET_NAME": "media"})["s3"]["bucket_name"] == "media"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_QUERYSTRING_EXPIRE", "0"),
        ("AWS_QUERYSTRING_EXPIRE", "604801"),
        ("AWS_QUERYSTRING_EXPIRE", "1h"),
        ("AWS_QUERYSTRING_EXPIRE", "-5"),
        ("AWS_QUERYSTRING_EXPIRE", "9" * 5000),
        ("AWS_S3_CUSTOM_DOMAIN", "https://cdn.example.com"),
        ("AWS_S3_REGION_NAME", "evil.example.com/"),
        ("AWS_S3_ENDPOINT_URL", "s3.example.com"),
        ("AWS_S3_ENDPOINT_URL", "https://"),
        ("AWS_S3_ENDPOINT_URL", "https://[::1"),
        ("AWS_S3_ENDPOINT_URL", "https://s3.example.com:port"),
        ("MINIO_ENDPOINT_URL", "ftp://minio"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"^{name} "):
        storage_from_env({**MINIO, name: value})


def test_two_services_at_once() -> None:
    with pytest.raises(ConfigurationError, match="USE_DO_SPACES and USE_MINIO are both on"):
        storage_from_env({**MINIO, "USE_DO_SPACES": "1"})


def test_an_address_with_a_password_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        storage_from_env({**AWS, "AWS_S3_ENDPOINT_URL": f"ftp://me:{SECRET}@example.com"})
    assert SECRET not in str(caught.value)


_WORDS = st.sampled_from(
    ["", " ", "0", "1", "yes", "off", "maybe", "eu-central-1", "media", "/", "a//b", "https://s3.example.com", "x:1"]
    + [phase.value for phase in LADDER]
)
_PLAIN = st.one_of(_WORDS, st.text(max_size=12))
_VARIABLES = {
    **dict.fromkeys(
        [
            "USE_S3",
            "USE_DO_SPACES",
            "USE_MINIO",
            "AWS_STORAGE_BUCKET_NAME",
            "AWS_S3_REGION_NAME",
            "AWS_S3_CUSTOM_DOMAIN",
            "AWS_S3_ENDPOINT_URL",
            "AWS_LOCATION",
            "AWS_QUERYSTRING_EXPIRE",
            "MINIO_ENDPOINT_URL",
            "MINIO_USE_SSL",
            "DUALSTORAGE_PHASE",
        ],
        _PLAIN,
    ),
    **dict.fromkeys(
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"],
        st.sampled_from(["", SECRET, f" {SECRET}\n"]),
    ),
}


def _options_or_error(environ: dict[str, str]) -> tuple[dict[str, Any] | None, str]:
    try:
        return options(environ), ""
    except ConfigurationError as error:
        return None, str(error)


@given(st.fixed_dictionaries({}, optional=_VARIABLES))
def test_any_environment_is_a_storage_or_a_configuration_error_that_tells_no_secret(environ: dict[str, str]) -> None:
    found, told = _options_or_error(environ)
    assert SECRET not in told
    if found is None:
        return
    storage = DualWriteStorage(**found)
    assert SECRET not in f"{storage!r}{storage.options!r}{storage.deconstruct()}"
    if "bucket_name" in found["s3"]:
        s3storage.build(storage.options.s3, storage.options.provider)


# -- at work -----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _no_keys_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_from_env()["OPTIONS"]["phase"] == "filesystem"
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    assert storage_from_env()["OPTIONS"]["s3"]["bucket_name"] == "obcms-media"


def test_a_site_without_any_s3_settings_works_as_with_filesystemstorage(settings: Settings, media_root: Path) -> None:
    settings.MEDIA_ROOT = str(media_root)
    configure(settings, {"default": storage_from_env({})})
    storage = storages["default"]

    name = storage.save("reports/first.txt", ContentFile(b"first"))
    assert name == "reports/first.txt"
    assert (media_root / name).read_bytes() == b"first"
    assert storage.save(name, ContentFile(b"second")) != name
    with storage.open(name) as file:
        assert file.read() == b"first"
    with storage.open(name, "ab") as file:
        file.write(b" and more")
    assert storage.size(name) == 14
    assert storage.exists(name)
    assert storage.url(name) == "/media/reports/first.txt"
    assert storage.path(name) == str(media_root / name)
    assert storage.get_modified_time(name)
    folders, files = storage.listdir("")
    assert (folders, files) == (["reports"], [])
    storage.delete(name)
    assert not storage.exists(name)
    storage.delete(name)
    assert check_s3() == []


@pytest.mark.django_db
def test_an_entry_from_the_environment_reaches_a_real_server(
    settings: Settings, media_root: Path, seaweed: SeaweedServer, seaweed_bucket: str, prefix: str
) -> None:
    settings.MEDIA_ROOT = str(media_root)
    configure(
        settings,
        {
            "default": storage_from_env(
                {
                    "USE_S3": "yes",
                    "USE_MINIO": "yes",
                    "MINIO_ENDPOINT_URL": seaweed.endpoint_url.removeprefix("http://"),
                    "MINIO_USE_SSL": "no",
                    "AWS_ACCESS_KEY_ID": seaweed.access_key,
                    "AWS_SECRET_ACCESS_KEY": seaweed.secret_key,
                    "AWS_STORAGE_BUCKET_NAME": seaweed_bucket,
                    "AWS_LOCATION": prefix,
                }
            )
        },
    )
    name = storages["default"].save("a.txt", ContentFile(b"both"))
    found = seaweed.client().get_object(Bucket=seaweed_bucket, Key=f"{prefix}/{name}")
    assert found["Body"].read() == b"both"
    assert found["CacheControl"] == "max-age=86400"
    assert (media_root / name).read_bytes() == b"both"
    assert check_s3() == []
