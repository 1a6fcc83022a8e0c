"""Our presigned URLs are the client library's own, byte for byte of what is signed, and a server takes them."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dualstorage.core.sigv4 import Endpoint, Keys, presign_get
from tests.support.endpoint import S3Server
from tests.support.seaweed import SeaweedServer

ACCESS, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "to/ken+with=everything&"

PLACES = {
    "path": ({"endpoint_url": "http://127.0.0.1:9000", "style": "path"}, "http", "127.0.0.1:9000", "/bucket/"),
    "virtual": ({"style": "virtual"}, "https", "bucket.s3.amazonaws.com", "/"),
    "https default port": (
        {"endpoint_url": "https://S3.Example.com:443", "style": "path"},
        "https",
        "S3.Example.com:443",
        "/bucket/",
    ),
    "a path in the endpoint": (
        {"endpoint_url": "https://example.com/s3", "style": "path"},
        "https",
        "example.com",
        "/s3/bucket/",
    ),
}


@lru_cache(maxsize=16)
def client(place: str, region: str, token: str | None) -> Any:
    options: dict[str, Any] = dict(PLACES[place][0])
    s3: Any = {"addressing_style": options.pop("style")}
    session: Any = boto3.Session(ACCESS, SECRET, token)
    return session.client("s3", region_name=region, config=Config(signature_version="s3v4", s3=s3), **options)


def parts(url: str) -> tuple[str, str, str, dict[str, list[str]]]:
    split = urlsplit(url)
    return split.scheme, split.netloc, split.path, parse_qs(split.query, strict_parsing=True)


KEYS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40),
    st.text(" +%~&=?#'\"()*!$,:;@[]üß🎈/ab.", min_size=1, max_size=30),
).filter(lambda key: all(part not in {"", ".", ".."} for part in key.split("/")))


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=60, deadline=None)
@given(key=KEYS, seconds=st.integers(1, 604_800), token=st.sampled_from([None, TOKEN]))
def test_it_is_the_librarys_own(place: str, key: str, seconds: int, token: str | None) -> None:
    region = "us-east-1" if place == "virtual" else "eu-west-3"
    theirs = client(place, region, token).generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": key}, ExpiresIn=seconds
    )
    now = datetime.strptime(parse_qs(urlsplit(theirs).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
    _, scheme, host, base_path = PLACES[place]
    ours = presign_get(
        Endpoint(scheme, host, base_path, region),
        Keys(ACCESS, SECRET, token),
        key,
        seconds=seconds,
        now=now.replace(tzinfo=timezone.utc),
    )
    assert parts(ours) == parts(theirs)


def test_keys_never_show_themselves() -> None:
    assert SECRET not in repr(Keys(ACCESS, SECRET, TOKEN))
    assert ACCESS not in repr(Keys(ACCESS, SECRET, TOKEN))


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        data: bytes = answer.read()
        return data


KEYS_OF_FILES = ["a.txt", "a b+c&d=e%41#?~.txt", "ünïcödé-名前-🎈.txt", "deep/er/'quote' (1)!*.txt"]


@pytest.mark.parametrize("key", KEYS_OF_FILES)
def test_a_server_takes_it(seaweed: SeaweedServer, seaweed_bucket: str, prefix: str, key: str) -> None:
    server: S3Server = seaweed
    server.client().put_object(Bucket=seaweed_bucket, Key=f"{prefix}/{key}", Body=key.encode())
    endpoint = Endpoint("http", urlsplit(server.endpoint_url).netloc, f"/{seaweed_bucket}/", "us-east-1")
    keys = Keys(server.access_key, server.secret_key)
    url = presign_get(endpoint, keys, f"{prefix}/{key}", seconds=60, now=datetime.now(timezone.utc))
    assert fetch(url) == key.encode()
    for broken in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("Expires=60", "Expires=61")):
        with pytest.raises(urllib.error.HTTPError, match="403") as refusal:
            fetch(broken)
        refusal.value.close()
