"""What the client library raises, in our words."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from django_dualstorage.engine.boto import translated
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3PreconditionError, S3TransientError


def client_error(status: int, code: str, retries: int = 0) -> ClientError:
    meta: Any = {"HTTPStatusCode": status, "RetryAttempts": retries}
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": meta}, "GetObject")


@pytest.mark.parametrize(
    ("error", "kind", "sent"),
    [
        (client_error(404, "NoSuchKey"), S3NotFoundError, True),
        (client_error(404, "NoSuchBucket"), S3Error, True),
        (client_error(404, "404"), S3Error, True),
        (client_error(403, "AccessDenied"), S3Error, True),
        (client_error(412, "PreconditionFailed"), S3PreconditionError, True),
        (client_error(409, "ConditionalRequestConflict"), S3TransientError, True),
        (client_error(429, "Whatever"), S3TransientError, True),
        (client_error(400, "RequestTimeout"), S3TransientError, True),
        (client_error(400, "SlowDown"), S3TransientError, True),
        (client_error(500, "InternalError"), S3TransientError, True),
        (ClientError({}, "GetObject"), S3Error, True),
        (EndpointConnectionError(endpoint_url="x"), S3TransientError, False),
        (ConnectTimeoutError(endpoint_url="x"), S3TransientError, False),
        (ReadTimeoutError(endpoint_url="x"), S3TransientError, True),
        (NoCredentialsError(), S3Error, False),
        (ParamValidationError(report="x"), S3Error, False),
        (OSError("socket"), S3TransientError, True),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else None,
)
def test_an_error_tells_what_is_known(error: Exception, kind: type[S3Error], sent: bool) -> None:
    found = translated(error, "get_object", "a.txt")
    assert type(found) is kind
    assert found.sent is sent
    assert "a.txt" in str(found)
    assert "get_object" in str(found)


@pytest.mark.parametrize(
    ("code", "told"), [("500", "500 to"), ("", "500 to"), ("InternalError", "500 InternalError to")]
)
def test_the_status_is_told_once(code: str, told: str) -> None:
    assert str(translated(client_error(500, code), "head_object", "a")) == f"S3 answered {told} head_object of a: m"


def test_an_error_after_a_retry_says_so() -> None:
    assert translated(client_error(412, "PreconditionFailed", retries=1), "put_object", "a").retried
    assert not translated(client_error(412, "PreconditionFailed"), "put_object", "a").retried
