"""The ``STORAGES`` entry from environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from django_dualstorage.core.phases import Phase, parse_phase
from django_dualstorage.core.providers import PROVIDERS
from django_dualstorage.exceptions import ConfigurationError

BACKEND: Final = "django_dualstorage.storage.DualWriteStorage"

_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"0", "false", "no", "off"})
#: "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference: a signature lasts seven days at most.
_LONGEST_EXPIRY: Final = 7 * 24 * 3600
_REGION: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(?::\d+)?")


def storage_from_env(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """An entry of STORAGES from ``USE_S3``, ``AWS_*``, ``MINIO_*`` and the like; an empty variable counts as unset.

    Without ``USE_S3`` the phase is pinned to ``filesystem``: everything as with FileSystemStorage, while commands can
    reach the bucket if one is named. With it the database row decides, or ``DUALSTORAGE_PHASE``.

    Raises ConfigurationError for a value that cannot be understood, or naming every variable that is missing.
    """
    variables = {name: value.strip() for name, value in environ.items() if value.strip()}
    use_s3 = _flag(variables, "USE_S3")
    provider = _provider(variables)
    phase = _phase(variables, use_s3)
    if missing := _missing(variables, provider, use_s3):
        raise ConfigurationError(
            f"The environment lacks {', '.join(missing)}. Set {'it' if len(missing) == 1 else 'them'}, or leave S3 out "
            "with USE_S3=0 and no AWS_STORAGE_BUCKET_NAME."
        )
    options: dict[str, Any] = {"provider": provider, "s3": _s3_options(variables, provider)}
    if phase is not None:
        options["phase"] = phase.value
    return {"BACKEND": BACKEND, "OPTIONS": options}


def _flag(variables: Mapping[str, str], name: str, default: bool = False) -> bool:
    value = variables.get(name)
    if value is None:
        return default
    if value.lower() not in _YES | _NO:
        raise ConfigurationError(f"{name} is {value!r}; it can be 1, true, yes, on or 0, false, no, off.")
    return value.lower() in _YES


def _phase(variables: Mapping[str, str], use_s3: bool) -> Phase | None:
    text = variables.get("DUALSTORAGE_PHASE")
    try:
        phase = None if text is None else parse_phase(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"DUALSTORAGE_PHASE cannot be used: {error}") from None
    if use_s3:
        return phase
    # Guessing which of the two is meant could hide the files of the other side.
    if phase not in (None, Phase.FILESYSTEM):
        raise ConfigurationError(
            f"USE_S3 is off, which means the phase {Phase.FILESYSTEM}, but DUALSTORAGE_PHASE is {text!r}. "
            "Set USE_S3=1, or take DUALSTORAGE_PHASE out."
        )
    return Phase.FILESYSTEM


def _provider(variables: Mapping[str, str]) -> str:
    spaces, minio = _flag(variables, "USE_DO_SPACES"), _flag(variables, "USE_MINIO")
    if spaces and minio:
        raise ConfigurationError("USE_DO_SPACES and USE_MINIO are both on; the files can go to one of them only.")
    if spaces:
        return "digitalocean"
    if minio:
        return "minio"
    endpoint = _url(variables, "AWS_S3_ENDPOINT_URL")
    if endpoint is None or (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return "aws"
    return "generic"


def _missing(variables: Mapping[str, str], provider: str, use_s3: bool) -> list[str]:
    """What must be set and is not. Without USE_S3 only what would send a backfill to the wrong server."""
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    needed = set()
    if use_s3:
        needed.add("AWS_STORAGE_BUCKET_NAME")
        # Amazon alone has other ways to give a machine its rights; half a pair is a slip there too.
        if provider != "aws" or keys & variables.keys():
            needed |= keys
    if use_s3 or "AWS_STORAGE_BUCKET_NAME" in variables:
        if provider == "minio" and "AWS_S3_ENDPOINT_URL" not in variables:
            needed.add("MINIO_ENDPOINT_URL")
        if provider == "digitalocean" and "AWS_S3_ENDPOINT_URL" not in variables:
            needed.add("AWS_S3_REGION_NAME")
    return sorted(needed - variables.keys())


def _s3_options(variables: Mapping[str, str], provider: str) -> dict[str, Any]:
    """Options of S3Storage. The guide's own values, except the ACL: new buckets refuse one, even ``private``."""
    region = _region(variables)
    found = {
        "access_key": variables.get("AWS_ACCESS_KEY_ID"),
        "secret_key": variables.get("AWS_SECRET_ACCESS_KEY"),
        "security_token": variables.get("AWS_SESSION_TOKEN"),
        "bucket_name": variables.get("AWS_STORAGE_BUCKET_NAME"),
        "custom_domain": _domain(variables, "AWS_S3_CUSTOM_DOMAIN"),
        "endpoint_url": _endpoint(variables, provider, region),
    }
    return {
        **{name: value for name, value in found.items() if value is not None},
        "region_name": region,
        # A slash alone is the way to say "the top of the bucket".
        "location": variables.get("AWS_LOCATION", "media").strip("/"),
        "use_ssl": provider != "minio" or _flag(variables, "MINIO_USE_SSL", default=True),
        "object_parameters": {"CacheControl": "max-age=86400"},
        "default_acl": None,
        "querystring_auth": True,
        "querystring_expire": _seconds(variables, "AWS_QUERYSTRING_EXPIRE", default=3600),
        "signature_version": "s3v4",
        "file_overwrite": False,
    }


def _endpoint(variables: Mapping[str, str], provider: str, region: str) -> str | None:
    given = _url(variables, "AWS_S3_ENDPOINT_URL")
    if provider == "minio":
        scheme = "https" if _flag(variables, "MINIO_USE_SSL", default=True) else "http"
        return _url(variables, "MINIO_ENDPOINT_URL", scheme) or given
    if given is None and provider == "digitalocean":
        return str(PROVIDERS[provider].endpoint).format(region=region)
    return given


def _url(variables: Mapping[str, str], name: str, scheme: str | None = None) -> str | None:
    """The URL in a variable; ``scheme`` is put before one that has none. It may hold a password: it is never shown."""
    value = variables.get(name)
    if value is None:
        return None
    if scheme is not None and "://" not in value:
        value = f"{scheme}://{value}"
    if not _is_url(value):
        raise ConfigurationError(f"{name} is not a URL such as https://s3.example.com.")
    return value


def _is_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # of a port that is no number, of half an IPv6 address
        return False


def _domain(variables: Mapping[str, str], name: str) -> str | None:
    value = variables.get(name)
    if value is not None and not _HOST.fullmatch(value):
        raise ConfigurationError(f"{name} is {value!r}; it must be a host name alone, such as cdn.example.com.")
    return value


def _region(variables: Mapping[str, str]) -> str:
    value = variables.get("AWS_S3_REGION_NAME", "us-east-1")
    if not _REGION.fullmatch(value):
        raise ConfigurationError(f"AWS_S3_REGION_NAME is {value!r}; a region looks like us-east-1 or sgp1.")
    return value


def _seconds(variables: Mapping[str, str], name: str, default: int) -> int:
    value = variables.get(name)
    if value is None:
        return default
    if not re.fullmatch(r"[0-9]{1,7}", value) or not 0 < int(value) <= _LONGEST_EXPIRY:
        raise ConfigurationError(f"{name} is {value!r}; it must be a number of seconds from 1 to {_LONGEST_EXPIRY}.")
    return int(value)
