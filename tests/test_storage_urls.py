"""``url()``: where a browser finds the file, phase by phase, and the same URL that django-storages gives."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.core.exceptions import SuspiciousFileOperation
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.test import override_settings
from storages.backends.s3 import S3Storage

from django_dualstorage.hints import Kind
from django_dualstorage.records import Known
from django_dualstorage.storage import DualWriteStorage
from tests.conftest import MakeStorage
from tests.support.asserts import never_stop
from tests.support.backfills import run

LOCAL, CERTIFIED, S3 = ("filesystem", "mirror"), ("dual", "dual-strict"), ("s3-primary", "s3")


def unsigned(url: str) -> tuple[str, str, str, dict[str, list[str]]]:
    """A URL without what the second and the signature make of it."""
    split = urlsplit(url)
    query = parse_qs(split.query)
    for changing in ("X-Amz-Date", "X-Amz-Signature", "Expires", "Signature"):
        if changing in query:
            query[changing] = ["..."]
    return split.scheme, split.netloc, split.path, query


def certify(storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a backfill had found every file on both sides; tests/test_records.py has the row in a database."""
    known = Known(storage.known.phase, certified=True)
    monkeypatch.setattr(storage.records, "known", lambda: known)


@pytest.mark.parametrize("phase", LOCAL)
def test_the_disks_url_is_djangos(make_storage: MakeStorage, media_root: Path, phase: str) -> None:
    storage, django = make_storage(phase), FileSystemStorage(media_root, "/media/")
    for name in ("a.txt", "a b/ü.txt", "", None, "/evil.com", "///evil.com", "\\evil.com", "a\\b.txt", "x?y#z", "a/"):
        assert storage.url(name) == django.url(name)


@pytest.mark.parametrize("phase", CERTIFIED)
def test_a_local_file_has_the_disks_url_until_all_is_certified(
    make_storage: MakeStorage, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = make_storage(phase)
    name = storage.save("a.txt", ContentFile(b"x"))
    assert storage.url(name) == "/media/a.txt"
    certify(storage, monkeypatch)
    assert storage.url(name).startswith("http")
    hint = storage.pair.journal.announce(Kind.SAVE, name, phase=phase)
    assert storage.url(name) == "/media/a.txt"
    hint.clear()
    assert storage.url(name).startswith("http")


@pytest.mark.django_db
def test_a_local_file_has_the_disks_url_after_the_s3_side_has_moved(make_storage: MakeStorage, prefix: str) -> None:
    here = make_storage(None)
    name = here.save("moved.txt", ContentFile(b"x"))
    assert run(here).complete
    assert here.url(name).startswith("http")
    there = make_storage(None, s3={"location": f"{prefix}-elsewhere"})
    assert there.url(name) == "/media/moved.txt"
    assert run(there, on_result=lambda result: stopped.ask(), stop=(stopped := never_stop())).interrupted
    assert there.url(name) == "/media/moved.txt"
    assert run(there).complete
    assert there.url(name).startswith("http")


@pytest.mark.parametrize("phase", [*CERTIFIED, *S3])
def test_what_the_disk_lacks_has_the_url_of_s3(make_storage: MakeStorage, phase: str) -> None:
    assert make_storage(phase).url("only-there.txt").startswith("http")


@pytest.mark.parametrize("phase", CERTIFIED)
def test_names_with_slashes_before_them_are_djangos_on_the_disk(
    make_storage: MakeStorage, media_root: Path, phase: str
) -> None:
    storage = make_storage(phase)
    (media_root / "evil.com").touch()
    for name in ("/evil.com", "///evil.com", "\\evil.com"):
        assert storage.url(name) == "/media/evil.com"


@pytest.mark.parametrize("phase", [*LOCAL, *CERTIFIED, *S3])
def test_our_own_files_have_no_url(make_storage: MakeStorage, phase: str) -> None:
    storage = make_storage(phase)
    for name in (".dualstorage/key", "/.dualstorage/key", "x/../.dualstorage/key"):
        with pytest.raises(SuspiciousFileOperation):
            storage.url(name)


@override_settings(MEDIA_URL=None)
def test_without_a_base_url_there_is_no_local_url(make_storage: MakeStorage, media_root: Path) -> None:
    (media_root / "a.txt").touch()
    for phase in ("filesystem", "dual"):
        with pytest.raises(ValueError, match="not accessible via a URL"):
            make_storage(phase, base_url=None).url("a.txt")


def test_a_browser_gets_the_file(make_storage: MakeStorage) -> None:
    for phase in S3:
        storage = make_storage(phase)
        name = storage.save(f"{phase}/a b+ü.txt", ContentFile(b"content"))
        with urllib.request.urlopen(storage.url(name), timeout=20) as answer:
            assert answer.read() == b"content"


# -- the same as django-storages ---------------------------------------------------------------------------------------

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "presigned": {},
    "presigned for an hour less": {"querystring_expire": 60},
    "virtual addressing": {"endpoint_url": None, "addressing_style": "virtual"},
    "no location": {"location": ""},
    "a session token": {"security_token": "tok/en+="},
    "no query": {"querystring_auth": False},
    "a domain": {"custom_domain": "cdn.example.com"},
    "a domain over http": {"custom_domain": "cdn.example.com", "url_protocol": "http:"},
    "an old signature": {"signature_version": "s3"},
}
CALLS: dict[str, dict[str, Any]] = {
    "plain": {},
    "expire": {"expire": 17},
    "parameters": {"parameters": {"ResponseContentDisposition": "attachment"}},
    "method": {"http_method": "HEAD"},
    "all": {"expire": 5, "http_method": "GET", "parameters": {"ResponseContentType": "text/plain"}},
}


@pytest.mark.parametrize("name", ["a.txt", "a b+ü~.txt", "folder/"])
@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_it_is_the_url_of_django_storages(
    make_storage: MakeStorage, s3_options: dict[str, Any], configuration: str, name: str
) -> None:
    options = CONFIGURATIONS[configuration]
    storage = make_storage("s3", s3=options, provider="generic")
    theirs = S3Storage(**{"signature_version": "s3v4", **s3_options, **options})
    for arguments in CALLS.values():
        assert unsigned(storage.url(name, **arguments)) == unsigned(theirs.url(name, **arguments))


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
def test_cloudfront_signs(make_storage: MakeStorage, s3_options: dict[str, Any]) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    options = {"custom_domain": "cdn.example.com", "cloudfront_key_id": "KID", "cloudfront_key": pem}
    url = make_storage("s3", s3=options).url("a b.txt")
    assert unsigned(url) == unsigned(S3Storage(**s3_options, **options).url("a b.txt"))
    assert {"Expires", "Signature", "Key-Pair-Id"} <= set(parse_qs(urlsplit(url).query))


class SiteStorage(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """A site's own, with URLs of its own."""

    def url(self, name: str, *args: Any, **kwargs: Any) -> str:
        return f"https://site.example.com/{name}"


class SiteNames(S3Storage):  # type: ignore[misc]  # django-storages has no types
    """A site's own, with other keys than ours would be: its URLs are its own affair."""

    def _normalize_name(self, name: str) -> str:
        normalized: str = super()._normalize_name(f"elsewhere/{name}")
        return normalized


@pytest.mark.parametrize(
    ("backend", "expected"), [("SiteStorage", "https://site.example.com/a.txt"), ("SiteNames", "/elsewhere/a.txt?")]
)
def test_a_site_may_make_its_own(media_root: Path, s3_options: dict[str, Any], backend: str, expected: str) -> None:
    s3 = {"BACKEND": f"{__name__}.{backend}", "OPTIONS": s3_options}
    storage = DualWriteStorage(media_root, phase="s3", provider="seaweedfs", s3=s3)
    assert expected in storage.url("a.txt")


def test_without_credentials_it_is_django_storages_error(
    make_storage: MakeStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    storage = make_storage("s3", s3={"access_key": None, "secret_key": None})
    with pytest.raises(Exception, match="credentials"):
        storage.url("a.txt")
