"""The server that only answers: were its answers wrong, the benchmark would measure error handling."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError

from benchmarks.backfill.buckets import Buckets
from benchmarks.backfill.servers import SERVERS, Target, UnavailableError, null_s3
from tests.support.endpoint import s3_client

MIB = 1 << 20


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    try:
        with SERVERS["null"]() as running:
            yield running
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def client(target: Target) -> Any:
    return s3_client(target.endpoint_url, target.access_key, target.secret_key)


@pytest.fixture
def bucket(target: Target) -> Iterator[str]:
    with Buckets(target).fresh() as name:
        yield name


def status_of(caught: pytest.ExceptionInfo[ClientError]) -> int:
    return int(caught.value.response["ResponseMetadata"]["HTTPStatusCode"])


def keys(client: Any, bucket: str, **parameters: Any) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, **parameters)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def test_what_was_put_has_its_size_and_headers(client: Any, bucket: str) -> None:
    put = client.put_object(
        Bucket=bucket,
        Key="a/b c+é.txt",
        Body=b"x" * 100_000,
        ContentType="text/plain",
        CacheControl="max-age=1",
        Metadata={"stamp": "1"},
    )
    head = client.head_object(Bucket=bucket, Key="a/b c+é.txt")
    assert (head["ContentLength"], head["ContentType"], head["CacheControl"]) == (100_000, "text/plain", "max-age=1")
    assert head["Metadata"] == {"stamp": "1"}
    assert head["ETag"] == put["ETag"]
    assert keys(client, bucket) == ["a/b c+é.txt"]
    assert len(client.get_object(Bucket=bucket, Key="a/b c+é.txt")["Body"].read()) == 100_000


def test_what_was_not_put_or_was_deleted_is_missing(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="gone", Body=b"")
    client.delete_object(Bucket=bucket, Key="gone")
    for key in ("gone", "never"):
        with pytest.raises(ClientError) as caught:
            client.head_object(Bucket=bucket, Key=key)
        assert status_of(caught) == 404


def test_conditions_are_honoured(client: Any, bucket: str) -> None:
    etag = client.put_object(Bucket=bucket, Key="a", Body=b"1", IfNoneMatch="*")["ETag"]
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="a", Body=b"2", IfNoneMatch="*")
    assert status_of(caught) == 412
    client.put_object(Bucket=bucket, Key="a", Body=b"2", IfMatch=etag)
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="a", Body=b"3", IfMatch=etag)
    assert status_of(caught) == 412


@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_a_listing_in_pages_has_everything_once_and_in_order(client: Any, bucket: str, page: int) -> None:
    names = ["a", "b/1", "b/2", "b/é", "b-", "c/d/1", "z"]
    for name in names:
        client.put_object(Bucket=bucket, Key=name, Body=b"")
    assert keys(client, bucket, MaxKeys=page) == sorted(names, key=str.encode)
    assert keys(client, bucket, MaxKeys=page, Prefix="b/") == ["b/1", "b/2", "b/é"]
    assert keys(client, bucket, StartAfter="b/2") == ["b/é", "c/d/1", "z"]


@pytest.mark.parametrize("page", [1, 2, 1000])
@pytest.mark.parametrize("call", ["list_objects", "list_objects_v2"])
def test_folders_are_listed_once_each(client: Any, bucket: str, page: int, call: str) -> None:
    for name in ("a", "b/1", "b/2", "b/é", "b-", "c/d/1", "z"):
        client.put_object(Bucket=bucket, Key=name, Body=b"")
    pages = list(client.get_paginator(call).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": page}))
    assert [found["Prefix"] for answer in pages for found in answer.get("CommonPrefixes", ())] == ["b/", "c/"]
    assert [found["Key"] for answer in pages for found in answer.get("Contents", ())] == ["a", "b-", "z"]


def test_parts_become_an_object_when_they_are_completed(client: Any, bucket: str) -> None:
    upload = {"Bucket": bucket, "Key": "large"}
    upload["UploadId"] = client.create_multipart_upload(**upload, ContentType="video/mp4")["UploadId"]
    etags = [client.upload_part(**upload, PartNumber=n, Body=bytes(5 * MIB))["ETag"] for n in (1, 2)]
    assert keys(client, bucket) == []
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    head = client.head_object(Bucket=bucket, Key="large")
    assert (head["ContentLength"], head["ContentType"]) == (10 * MIB, "video/mp4")
    with pytest.raises(ClientError) as caught:
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert status_of(caught) == 404


def test_bodies_in_chunks_and_framed_by_a_signature_count_as_what_they_carry(target: Target, bucket: str) -> None:
    http = urllib3.PoolManager()
    address = f"{target.endpoint_url}/{bucket}/chunked"
    framed = b"5;chunk-signature=0\r\nhello\r\n0;chunk-signature=0\r\n\r\n"
    answer = http.request(
        "PUT",
        address,
        body=iter([framed[:10], framed[10:]]),
        headers={"X-Amz-Decoded-Content-Length": "5"},
        chunked=True,
    )
    assert answer.status == 200
    # The same connection is good for the next request.
    assert http.request("HEAD", address).headers["Content-Length"] == "5"


def test_a_removed_bucket_is_empty(target: Target, client: Any) -> None:
    buckets = Buckets(target)
    with buckets.fresh() as bucket:
        for number in range(1_100):
            client.put_object(Bucket=bucket, Key=f"{number:04d}", Body=b"ab")
        found = buckets.contents(bucket)
        assert (found.objects, found.bytes) == (1_100, 2_200)
    assert buckets.contents(bucket).objects == 0


def test_answers_come_after_the_latency() -> None:
    try:
        with null_s3("null-50ms", latency_ms=50) as slow:
            http = urllib3.PoolManager()
            started = time.perf_counter()
            for _ in range(3):
                assert http.request("PUT", f"{slow.endpoint_url}/bucket/key", body=b"x").status == 200
            assert time.perf_counter() - started >= 0.15
    except UnavailableError as error:
        pytest.skip(str(error))


def test_tls_is_verified_against_an_authority_of_its_own() -> None:
    try:
        with SERVERS["null-tls"]() as target:
            with Buckets(target).fresh() as bucket:
                assert Buckets(target).contents(bucket).objects == 0
            stranger = boto3.session.Session().client(
                "s3",
                endpoint_url=target.endpoint_url,
                aws_access_key_id="NULL",
                aws_secret_access_key="-",
                region_name="us-east-1",
                config=Config(retries={"total_max_attempts": 1}, proxies={}),
            )
            with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
                stranger.list_buckets()
    except UnavailableError as error:
        pytest.skip(str(error))
