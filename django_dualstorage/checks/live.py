"""Asking S3 itself, with ``check --deploy``."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from typing import Final

from django.core.checks import CheckMessage

from django_dualstorage.checks.backends import Dual
from django_dualstorage.checks.messages import attempted, message, told
from django_dualstorage.checks.s3 import is_left_out, s3_problems
from django_dualstorage.core.stamp import Stamp, next_mtime_ns
from django_dualstorage.engine.objectstore import Source, unnoted
from django_dualstorage.exceptions import S3Error, S3TransientError
from django_dualstorage.operations.probe import honours_conditions
from django_dualstorage.sides.s3 import S3Side

_CONTENT: Final = b"django-dualstorage check"

_KEYS: Final = (
    "The service does not know these keys: compare AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the endpoint."
)
_REGION: Final = "Set AWS_S3_REGION_NAME to the bucket's own region."
_NEXT_STEPS: Final = {
    "NoSuchBucket": "Create the bucket, or correct AWS_STORAGE_BUCKET_NAME, the region or the endpoint.",
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "ExpiredToken": "The temporary credentials have expired: renew them.",
    "NoCredentialsError": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role.",
    "AccessDenied": "Allow s3:PutObject, s3:GetObject and s3:DeleteObject on the bucket's objects, and s3:ListBucket "
    "on the bucket.",
    "AccessControlListNotSupported": "Remove AWS_DEFAULT_ACL or default_acl: this bucket takes no ACL.",
    "RequestTimeTooSkewed": "Set this machine's clock; signatures hold for minutes.",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}


def live_problems(dual: Dual) -> Iterator[CheckMessage]:
    """Write, read and remove one small object, unless what is configured cannot work anyway or is not there."""
    if is_left_out(dual) or any(problem.is_serious() for problem in s3_problems(dual)):
        return
    # Besides S3Error: the client library's own for a configuration that it cannot use, those of a site's session.
    honoured = attempted(_tried, dual)
    if isinstance(honoured, Exception):
        yield message(
            "dualstorage.E027",
            dual.where,
            f"S3 cannot be used: {told(honoured, dual.options)}",
            _next_step(honoured),
        )
    elif not honoured:
        yield message(
            "dualstorage.W028",
            dual.where,
            "The S3 server ignores conditional requests (If-None-Match, If-Match).",
            "The migration works without: stamps keep readers right. But a request that lands late may undo a newer "
            "one until repair has looked, so run manage.py dualstorage_repair often.",
        )


def _tried(dual: Dual) -> bool:
    """Whether conditions are honoured. Raises S3Error and others."""
    _round_trip(dual.storage.pair.s3)
    return honours_conditions(dual.storage.pair)


def _round_trip(s3: S3Side) -> None:
    """With the parameters of a real upload, ACL and encryption included. Raises S3Error."""
    name = f".dualstorage-check-{secrets.token_hex(8)}"
    stamp = Stamp(len(_CONTENT), next_mtime_ns(None))
    with tempfile.TemporaryFile() as file:
        os.write(file.fileno(), _CONTENT)
        source = Source(file.fileno(), len(_CONTENT))
        s3.put(name, source, stamp, secrets.token_hex(16), patient=True, sending=unnoted)
    try:
        body = s3.get(name, patient=True)
        try:
            content, found = body.read(), body.info.stamp
        finally:
            body.close()
        if content != _CONTENT or found != stamp:
            raise S3Error("what was written came back changed, or without its metadata")
    finally:
        s3.delete(name, patient=True, sending=unnoted)


def _next_step(error: Exception) -> str:
    step = _NEXT_STEPS.get(error.code) if isinstance(error, S3Error) else None
    if step is None and isinstance(error, S3TransientError):
        step = (
            "S3 answered, so the network is right: try again, and if that lasts ask whoever runs the service, or the "
            "proxy before it."
            if error.status
            else "Check the endpoint, DNS, TLS and the firewall between this machine and S3."
        )
    return (
        step
        or "It was a PUT, GET or DELETE of one small object below location: look up what the service means by that."
    )
