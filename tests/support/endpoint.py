"""What a test may ask of an S3 server, whichever server it is."""

from __future__ import annotations

import os
import secrets
import threading
from typing import Any, Protocol

import boto3
from botocore import UNSIGNED
from botocore.config import Config

REGION = "us-east-1"


class _Clients:
    """Makes clients from one session: a session each would read the description of S3 from disk each time (60 ms).

    A session isn't thread-safe, hence the lock; a forked child gets a new one, since the parent's may be held forever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._session: boto3.session.Session | None = None
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._session = None

    def make(self, **arguments: Any) -> Any:
        with self._lock:
            if self._session is None:
                self._session = boto3.session.Session()
            return self._session.client("s3", **arguments)


_clients = _Clients()


class S3Server(Protocol):
    """The common face of the servers, so that a test or a fixture can be run against each of them."""

    @property
    def endpoint_url(self) -> str: ...
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def create_bucket(self, name: str | None = None) -> str: ...
    def client(self, **options: Any) -> Any: ...


def s3_client(
    endpoint_url: str,
    access_key: str | None,
    secret_key: str | None,
    *,
    attempts: int = 1,
    connect_timeout: float = 5,
    read_timeout: float = 20,
    config: Config | None = None,
) -> Any:
    """A boto3 client that sends each request once unless told otherwise: a hidden retry would spoil a count.

    Without an access key the requests are not signed.
    """
    base = Config(
        region_name=REGION,
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # A proxy from the environment must not get between a test and a server on this machine.
        proxies={},
    )
    if access_key is None:
        base = base.merge(Config(signature_version=UNSIGNED))
    return _clients.make(
        endpoint_url=endpoint_url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=base.merge(config) if config else base,
    )


def new_bucket_name() -> str:
    """A name that no other test uses, so that one server can serve a whole run."""
    return f"test-{secrets.token_hex(6)}"
