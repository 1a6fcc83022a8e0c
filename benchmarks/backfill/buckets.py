"""A fresh bucket for each run, and what is in it afterwards: a mover that did less must not look fast."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import urllib3
from botocore.config import Config

from benchmarks.backfill.servers import Target
from tests.support.endpoint import REGION, new_bucket_name

_SIZE = re.compile(rb"<Size>(\d+)</Size>")
_MOMENT = re.compile(rb"<LastModified>([^<]+)</LastModified>")
_LAST_KEY = re.compile(rb"<Key>([^<]+)</Key>")


@dataclass(frozen=True)
class Contents:
    """How many objects, of how many bytes, and when the last was written."""

    objects: int
    bytes: int
    newest: str


class Buckets:
    """The buckets of one server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._verify = None if target.authority is None else str(target.authority)
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=target.endpoint_url,
            aws_access_key_id=target.access_key,
            aws_secret_access_key=target.secret_key,
            region_name=REGION,
            verify=self._verify,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
        )
        self._http = urllib3.PoolManager(ca_certs=self._verify)

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A bucket that has been written to (SeaweedFS takes 0.2 s for the first object) and is empty; removed."""
        bucket = new_bucket_name()
        self._client.create_bucket(Bucket=bucket)
        try:
            self._client.put_object(Bucket=bucket, Key="first", Body=b"first")
            self._client.delete_object(Bucket=bucket, Key="first")
            yield bucket
        finally:
            self._client.delete_bucket(Bucket=bucket)  # neither server asks that it be empty

    def contents(self, bucket: str) -> Contents:
        """What a listing says. Read with regular expressions: botocore's parser takes 7 s for 100,000 objects."""
        objects = size = 0
        newest = last = b""
        more = True
        while more:
            address = self._client.generate_presigned_url(
                "list_objects_v2", Params={"Bucket": bucket, "StartAfter": last.decode()}
            )
            answer = self._http.request("GET", address)
            if answer.status != 200:
                raise RuntimeError(f"the listing of the benchmark's bucket failed with {answer.status}")
            sizes = _SIZE.findall(answer.data)
            objects += len(sizes)
            size += sum(map(int, sizes))
            newest = max([newest, *_MOMENT.findall(answer.data)])
            more = b"<IsTruncated>true" in answer.data and bool(sizes)
            last = _LAST_KEY.findall(answer.data)[-1] if sizes else last
        return Contents(objects, size, newest.decode())

    def rest(self, *, patience: float = 10.0) -> None:
        """Wait until the server has nothing left to do from the run before, for at most ``patience`` seconds."""
        deadline = time.monotonic() + patience
        before = self._target.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.25)
            now = self._target.cpu()
            if now - before <= 0.02:
                return
            before = now
