"""Listings as servers write them, and as they must not be believed."""

from __future__ import annotations

from typing import Any

import pytest

from django_dualstorage.core.objects import ListedObject
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.listing import parse
from django_dualstorage.exceptions import S3Error, S3TransientError
from tests.support.moto import MotoServer
from tests.support.proxy import FaultProxy, Status
from tests.support.seaweed import SeaweedServer

ODD_KEYS = ["a//b", "a/../b", "/a", "a\x01b", "a b", "a+b", "a%2Bb", "ü&<>\"'", "x" * 1000, "]]>", "\u2028"]
ONE = "<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>"


def page(inner: str, *, namespace: bool = True) -> bytes:
    name = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"' if namespace else ""
    return f'<?xml version="1.0"?><ListBucketResult{name}>{inner}</ListBucketResult>'.encode()


@pytest.mark.parametrize("namespace", [True, False])
def test_a_page_says_what_there_is(namespace: bool) -> None:
    owner = "<Owner><ID>1</ID><DisplayName>Key</DisplayName></Owner>"
    entry = f"<Contents>{owner}<Key>a+%2B%0A</Key><Size>3</Size><ETag>&quot;e&quot;</ETag>{owner}</Contents>"
    folder = "<CommonPrefixes><Prefix>f+/</Prefix></CommonPrefixes>"
    found = parse(page(f"<EncodingType>url</EncodingType>{entry}{folder}", namespace=namespace), "b")
    assert found.objects == [ListedObject("a +\n", 3, '"e"')]
    assert (found.folders, found.token) == (["f /"], "")


def test_a_key_is_decoded_only_if_the_server_says_that_it_encoded_it() -> None:
    assert parse(page(ONE.format(key="a+%2B")), "b").objects[0].key == "a+%2B"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not XML"),
        (b"<html><body>Welcome</body></html>", "no listing"),
        (b"<ListBucketResult>", "not XML"),
        (page("<Contents><Key>a</Key><Size>1</Size></Contents>"), "without"),
        (page("<Contents><Key>a</Key><Size>many</Size><ETag>e</ETag></Contents>"), "without"),
        (page("<Contents><Size>1</Size><ETag>e</ETag></Contents>"), "without"),
        (page(ONE.format(key="\x01")), "not XML"),
        (page("<IsTruncated>true</IsTruncated>"), "not where"),
    ],
)
def test_what_is_no_listing_is_not_an_empty_one(body: bytes, why: str) -> None:
    with pytest.raises(S3TransientError, match=why):
        parse(body, "the bucket b")


def test_any_key_comes_back_as_it_is(moto: MotoServer) -> None:
    """On moto: SeaweedFS tidies some of these up."""
    bucket, client = moto.create_bucket(), moto.client()
    for key in ODD_KEYS:
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    found = {listed.key: listed for listed in BotoStore(client, bucket).list_all("")}
    assert set(found) == set(ODD_KEYS)
    for key, listed in found.items():
        assert listed.size == len(key.encode())
        assert listed.etag == client.head_object(Bucket=bucket, Key=key)["ETag"]


def test_other_users_of_the_client_see_nothing_of_it(seaweed: SeaweedServer, seaweed_bucket: str, prefix: str) -> None:
    client = seaweed.client()
    client.put_object(Bucket=seaweed_bucket, Key=f"{prefix}/a", Body=b"x")
    store = BotoStore(client, seaweed_bucket)
    assert [listed.key for listed in store.list_all(prefix)] == [f"{prefix}/a"]
    assert client.list_objects_v2(Bucket=seaweed_bucket, Prefix=prefix)["Contents"][0]["Key"] == f"{prefix}/a"


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Status(503), S3TransientError, "SlowDown"),
        (Status(403), S3Error, "AccessDenied"),
        (
            Status(200, body=b"<?xml version='1.0'?><Error><Code>InternalError</Code></Error>"),
            S3TransientError,
            "InternalError",
        ),
        (Status(200, body=b"<html>Welcome</html>"), S3TransientError, ""),
    ],
)
def test_an_error_is_an_error(
    seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy, fault: Any, kind: type[S3Error], code: str
) -> None:
    proxy.fail(fault)
    with pytest.raises(S3Error) as failure:
        list(BotoStore(seaweed.client(endpoint_url=proxy.endpoint_url), seaweed_bucket).list_all(""))
    assert (type(failure.value), failure.value.code) == (kind, code)


def test_a_listing_that_goes_round_in_circles_is_left(
    seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy
) -> None:
    again = page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>")
    proxy.fail(Status(200, body=again), times=None)
    with pytest.raises(S3TransientError, match="again and again"):
        list(BotoStore(seaweed.client(endpoint_url=proxy.endpoint_url), seaweed_bucket).list_all(""))
    assert proxy.count() == 2
