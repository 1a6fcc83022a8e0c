"""Signatures without the client library's per-call cost: of presigned GET URLs, and of requests.

The rules are "Authenticating Requests: Using Query Parameters" and "... Using the Authorization Header (AWS Signature
Version 4)", Amazon S3 API Reference. The library spends about 0.2 ms on each URL, most of it on resolving the endpoint
and building a request; a page with a hundred images feels that. The signature itself is a handful of hashes, most of
which stay the same for a day.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class Endpoint:
    """Where the objects of one bucket are, as the client library resolved it once."""

    #: ``https`` or ``http``.
    scheme: str
    #: Host, with a port if the configuration has one.
    host: str
    #: Path before the key: ``/`` or ``/bucket/``.
    base_path: str
    region: str

    @property
    def host_header(self) -> str:
        """What a browser sends: in lower case, and without the port that the scheme implies."""
        return self.host.lower().removesuffix(_DEFAULT_PORTS.get(self.scheme, ""))


@dataclass(frozen=True)
class Keys:
    """The credentials of the moment; never shown."""

    access: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(<hidden>)"


def presign_get(endpoint: Endpoint, keys: Keys, key: str, *, seconds: int, now: datetime) -> str:
    """The URL by which anybody can GET ``key`` for ``seconds`` from ``now`` (aware, UTC)."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    date = stamp[:8]
    scope = f"{date}/{endpoint.region}/s3/aws4_request"
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256"
        f"&X-Amz-Credential={quote(f'{keys.access}/{scope}', safe='')}"
        f"&X-Amz-Date={stamp}&X-Amz-Expires={seconds}"
    )
    if keys.token:
        query += f"&X-Amz-Security-Token={quote(keys.token, safe='')}"
    query += "&X-Amz-SignedHeaders=host"
    path = object_path(endpoint, key)
    canonical = f"GET\n{path}\n{query}\nhost:{endpoint.host_header}\n\nhost\nUNSIGNED-PAYLOAD"
    signature = _signature(keys, endpoint.region, stamp, scope, canonical)
    return f"{endpoint.scheme}://{endpoint.host}{path}?{query}&X-Amz-Signature={signature}"


def object_path(endpoint: Endpoint, key: str) -> str:
    """The path of ``key`` as it is sent and signed, byte for byte: nobody may tidy its dots and slashes."""
    return endpoint.base_path + quote(key, safe="/~")


def authorization(
    endpoint: Endpoint,
    keys: Keys,
    method: str,
    path: str,
    query: str,
    headers: Sequence[tuple[str, str]],
    payload_sha256: str,
    stamp: str,
) -> str:
    """The Authorization header of a request that has these headers: all of them are signed.

    ``path`` and ``query`` as sent, the query's parameters in order and each with its ``=``. ``headers`` in order of
    their names, which are in lower case, with ``host`` and ``x-amz-date``, whose value is ``stamp`` (YYYYMMDDTHHMMSSZ);
    values without white space at their ends. ``payload_sha256`` in hexadecimal.
    """
    lines = []
    for name, value in headers:
        lines.append(f"{name}:{' '.join(value.split()) if '  ' in value else value}\n")
    names = ";".join([name for name, _ in headers])
    canonical = f"{method}\n{path}\n{query}\n{''.join(lines)}\n{names}\n{payload_sha256}"
    scope = f"{stamp[:8]}/{endpoint.region}/s3/aws4_request"
    signature = _signature(keys, endpoint.region, stamp, scope, canonical)
    return f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"


def _signature(keys: Keys, region: str, stamp: str, scope: str, canonical: str) -> str:
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(_day_key(keys, stamp[:8], region), to_sign.encode(), "sha256").hex()


@lru_cache(maxsize=16)
def _day_key(keys: Keys, date: str, region: str) -> bytes:
    signing = f"AWS4{keys.secret}".encode()
    for part in (date, region, "s3", "aws4_request"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    return signing
