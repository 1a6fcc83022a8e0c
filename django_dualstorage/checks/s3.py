"""The S3 side, as far as can be told without sending a request."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError
from botocore.session import Session
from django.conf import settings
from django.core.checks import CheckMessage
from storages.backends.s3 import S3Storage

from django_dualstorage import s3storage
from django_dualstorage.checks.backends import Dual
from django_dualstorage.checks.messages import attempted, message, told
from django_dualstorage.core.providers import endpoint_is_known

#: Where the client library finds credentials besides, without asking anybody.
_OTHER_SOURCES: Final = (
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
_IN_PROFILE: Final = frozenset(
    {
        "aws_access_key_id",
        "credential_process",
        "login_session",
        "role_arn",
        "sso_session",
        "sso_start_url",
        "web_identity_token_file",
    }
)
_OLD_SIGNATURES: Final = frozenset({"s3", "s3-query", "v2"})
_ENDPOINTS: Final = {
    "digitaloceanspaces.com": "digitalocean",
    "r2.cloudflarestorage.com": "r2",
    "backblazeb2.com": "b2",
}


def s3_problems(dual: Dual) -> list[CheckMessage]:
    """What is wrong with the S3 side. Nothing, if there is none and the phase is pinned to one that needs none."""
    if is_left_out(dual):
        return []
    found = attempted(_problems, dual)
    if isinstance(found, Exception):
        found = [
            message(
                "dualstorage.E005",
                dual.where,
                f"The S3 side cannot be configured: {told(found, dual.options)}",
                "Correct OPTIONS['s3'] or the AWS_ setting of django-storages that is named.",
            )
        ]
    if dual.pinned is not None and dual.must_use_s3 and any(problem.is_serious() for problem in found):
        found.append(
            message(
                "dualstorage.E015",
                dual.where,
                f"The phase is pinned to {dual.pinned.phase}, in which no file can be read without S3, and S3 cannot "
                "be used as it is configured.",
                "Correct what the other messages name. Pinning an earlier phase instead would hide the files that only "
                "S3 has.",
            )
        )
    return found


def is_left_out(dual: Dual) -> bool:
    """Whether S3 is neither configured nor asked."""
    s3 = attempted(s3storage.as_configured, dual.storage.options.s3)
    return not dual.may_use_s3 and isinstance(s3, S3Storage) and not s3.bucket_name


def _problems(dual: Dual) -> list[CheckMessage]:
    s3 = s3storage.as_configured(dual.storage.options.s3)
    checks = (_bucket, _credentials, _acl, _gzip, _overwrite, _signature, _address, _endpoint)
    found = [problem for check in checks for problem in check(dual, s3)]
    if s3.bucket_name and not s3.gzip:
        _built(dual)
    return found


def _built(dual: Dual) -> S3Storage:
    return s3storage.build(dual.storage.options.s3, dual.storage.options.provider)


def _bucket(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    if not s3.bucket_name:
        yield message(
            "dualstorage.E006",
            dual.where,
            "No bucket is configured.",
            "Set AWS_STORAGE_BUCKET_NAME, or bucket_name in OPTIONS['s3']. To stay on the disk alone for now, set "
            "DUALSTORAGE_PHASE = 'filesystem'.",
        )


def _credentials(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    try:
        profile = Session(profile=s3.session_profile).get_scoped_config()
    except BotoCoreError as error:
        yield message(
            "dualstorage.E009",
            dual.where,
            f"The AWS profile cannot be used: {told(error, dual.options)}",
            "Correct AWS_PROFILE or AWS_S3_SESSION_PROFILE, or add the profile to the file of the user that runs "
            "Django. The client library refuses to start otherwise, even if keys are configured.",
        )
        return
    given = (s3.access_key, s3.secret_key)
    environment = (os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY"))
    if any(given) != all(given) or (s3.security_token and not any(given)):
        yield _half(dual, *given)
    elif any(given) or _makes_own_session(s3):
        return
    elif not s3.session_profile and any(environment):
        if not all(environment):
            yield _half(dual, *environment)
    elif not _IN_PROFILE & profile.keys() and not any(os.environ.get(name) for name in _OTHER_SOURCES):
        yield message(
            "dualstorage.W008",
            dual.where,
            "No S3 credentials are configured: no keys in OPTIONS, settings or environment, no profile, no container "
            "role. The client library will ask the machine's instance role at the first request.",
            "Fine on a machine with such a role. Elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )


def _half(dual: Dual, access_key: Any, secret_key: Any) -> CheckMessage:
    named = {"the access key id": access_key, "the secret access key": secret_key}
    return message(
        "dualstorage.E007",
        dual.where,
        f"The S3 credentials are given by half, without {' and '.join(name for name in named if not named[name])}.",
        "Set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN only with temporary ones), or "
        "none of them.",
    )


def _makes_own_session(s3: S3Storage) -> bool:
    return type(s3)._create_session is not S3Storage._create_session


def _acl(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    acl = s3.get_object_parameters("").get("ACL") or s3.default_acl
    provider = dual.storage.options.provider
    if acl and provider.refuses_acl:
        yield message(
            "dualstorage.W010",
            dual.where,
            f"Objects are to be written with the ACL {acl!r}. New buckets (BucketOwnerEnforced) refuse ACL headers, "
            f"and then every upload to {provider.name} fails.",
            "Remove AWS_DEFAULT_ACL or default_acl: without one an object is private. Who may read is the bucket "
            "policy's business.",
        )


def _gzip(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    if s3.gzip:
        yield message(
            "dualstorage.E011",
            dual.where,
            "gzip is on for the S3 side: it changes the bytes, so the two sides could never be equal.",
            "Remove AWS_IS_GZIPPED or the option gzip and let the CDN or the web server compress.",
        )


def _overwrite(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    if _is_set(dual, s3, "file_overwrite", "AWS_S3_FILE_OVERWRITE") and (
        bool(s3.file_overwrite) != dual.storage._allow_overwrite
    ):
        yield message(
            "dualstorage.W012",
            dual.where,
            f"file_overwrite is {bool(s3.file_overwrite)} for the S3 side and is ignored: the two sides must choose "
            f"the same name, and that follows allow_overwrite, which is {dual.storage._allow_overwrite}.",
            "Remove AWS_S3_FILE_OVERWRITE or file_overwrite, and say what you mean with allow_overwrite in OPTIONS of "
            "DualWriteStorage.",
        )


def _is_set(dual: Dual, s3: S3Storage, option: str, setting: str) -> bool:
    return _is_option(dual, option) or hasattr(settings, setting) or hasattr(type(s3), option)


def _is_option(dual: Dual, option: str) -> bool:
    given: Mapping[str, Any] = dual.storage.options.s3
    return option in (given.get("OPTIONS", {}) if "BACKEND" in given else given)


def _signature(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    version = s3.client_config.signature_version
    if version in _OLD_SIGNATURES:
        yield message(
            "dualstorage.W013",
            dual.where,
            f"Requests are to be signed with {version!r}, which newer regions and most S3 services refuse.",
            "Remove AWS_S3_SIGNATURE_VERSION or signature_version; s3v4 is the default here.",
        )


def _address(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    provider = dual.storage.options.provider
    endpoint = attempted(s3storage.endpoint_of, s3)
    if isinstance(endpoint, Exception):  # a profile that cannot be used, of which _credentials() tells
        return
    if not endpoint_is_known(provider, endpoint, s3.region_name):
        region = " AWS_S3_REGION_NAME is enough, its addresses are known." if provider.endpoint else ""
        yield message(
            "dualstorage.E029",
            dual.where,
            f"The provider is {provider.name} and its address is not configured, so requests would go to Amazon.",
            f"Set AWS_S3_ENDPOINT_URL, or endpoint_url in OPTIONS['s3'].{region}",
        )


def _endpoint(dual: Dual, s3: S3Storage) -> Iterator[CheckMessage]:
    if not s3.endpoint_url:
        return
    parts = urlsplit(s3.endpoint_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        named = "the option endpoint_url" if _is_option(dual, "endpoint_url") else "AWS_S3_ENDPOINT_URL"
        raise ValueError(f"{named} must be a URL that begins with https:// or http://")
    provider = dual.storage.options.provider.name
    for host, fitting in _ENDPOINTS.items():
        if f".{parts.hostname}".endswith(f".{host}") and provider != fitting:
            yield message(
                "dualstorage.W014",
                dual.where,
                f"The endpoint {parts.hostname} belongs to the provider {fitting!r}, but {provider!r} is configured.",
                f"Set DUALSTORAGE_PROVIDER = {fitting!r}, or provider in OPTIONS: services differ in the checksums and "
                "ACLs that they take.",
            )


@dataclass(frozen=True)
class _Place:
    """Where a storage keeps its objects."""

    dual: Dual
    endpoint: str | None
    bucket: str
    #: With a slash at its end, so that one begins with the other only if it lies in it.
    prefix: str

    def overlaps(self, other: _Place) -> bool:
        return (self.endpoint, self.bucket) == (other.endpoint, other.bucket) and (
            self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)
        )


def shared_prefixes(duals: list[Dual]) -> list[CheckMessage]:
    """Two storages on one prefix would each take the other's objects for strangers."""
    return [
        message(
            "dualstorage.E022",
            two.dual.where,
            f"It shares the bucket {two.bucket} with {one.dual.where}, and their prefixes {two.prefix!r} and "
            f"{one.prefix!r} lie in each other.",
            "Give each storage a location of its own in OPTIONS['s3'], not one inside the other, or another bucket.",
        )
        for one, two in combinations(_places(duals), 2)
        if one.overlaps(two)
    ]


def _places(duals: list[Dual]) -> Iterator[_Place]:
    for dual in duals:
        s3 = attempted(_built, dual)
        if isinstance(s3, S3Storage):  # s3_problems() tells of the others
            prefix = s3.location.strip("/")
            yield _Place(dual, s3.endpoint_url, s3.bucket_name, f"{prefix}/" if prefix else "")
