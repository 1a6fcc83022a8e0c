"""Whether obstore can stand in for a boto3 client, and with what settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from django_dualstorage.engine.boto import BotoStore

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

#: obstore asks again when less than five minutes are left, so once a minute; the client library renews temporary
#: credentials ten minutes or more before they end.
_CREDENTIALS_LAST: Final = timedelta(minutes=6)
_MARK: Final = "dualstorage-mark"
#: Variables that obstore obeys though it is told nothing of them.
_OBEYED: Final = ("AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_", "AWS_PROXY_")
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")
_PLAIN_QUERY: Final = frozenset(
    {
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
        "X-Amz-Security-Token",
    }
)


@dataclass(frozen=True)
class Settings:
    """What an obstore client is made of."""

    bucket: str
    #: With the bucket's name in it where that is the addressing style.
    endpoint: str
    region: str
    virtual_hosted: bool
    #: ``sha256`` or ``md5``.
    checksum: str
    #: Whether to check certificates.
    verify: bool
    #: Seconds.
    connect_timeout: float
    read_timeout: float
    user_agent: str
    #: The credentials of the moment, as obstore wants them.
    credential: Callable[[], dict[str, Any]] = field(repr=False)


def settings_of(store: BotoStore) -> Settings | str:
    """The settings by which obstore does what the client of ``store`` would do; else, why there are none."""
    client = store.client
    config: Any = client.meta.config
    if store.common:
        return f"every request needs {', '.join(sorted(store.common))}"
    if why := _environment():
        return why
    place = _place(client, store.bucket)
    if isinstance(place, str):
        return place
    endpoint, region, virtual_hosted = place
    session: Any = getattr(getattr(client, "_endpoint", None), "http_session", None)
    verify = getattr(session, "_verify", None)
    if endpoint.startswith("http:"):
        verify = True
    # obstore would trust the system's authorities beside those of the file.
    if not isinstance(verify, bool):
        return "it trusts only the certificates of a file"
    if getattr(session, "_cert_file", "unknown") is not None:
        return "it shows a certificate of its own"
    if config.proxies:
        return "a proxy is configured"
    credentials = getattr(getattr(client, "_request_signer", None), "_credentials", None)
    if credentials is None:
        return "it has no credentials"

    def credential() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(timezone.utc) + _CREDENTIALS_LAST,
        }

    return Settings(
        bucket=store.bucket,
        endpoint=endpoint,
        region=region,
        virtual_hosted=virtual_hosted,
        checksum=store.checksum,
        verify=verify,
        connect_timeout=float(config.connect_timeout),
        read_timeout=float(config.read_timeout),
        user_agent=str(config.user_agent),
        credential=credential,
    )


def _environment() -> str | None:
    for name, value in os.environ.items():
        if value and (name.lower() in _PROXIES or name.startswith(_OBEYED)):
            return f"{name} is set in the environment"
    return None


def _place(client: S3Client, bucket: str) -> tuple[str, str, bool] | str:
    """Endpoint, region, and whether the endpoint has the bucket's name, learned from a URL that the client made."""
    try:
        url = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _MARK}))
    except (BotoCoreError, ClientError, ValueError) as error:
        return f"its endpoint is not known ({type(error).__name__})"
    query = parse_qs(url.query)
    if query.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"] or not set(query) <= _PLAIN_QUERY:
        return "it signs in another way than AWS4-HMAC-SHA256"
    region = query["X-Amz-Credential"][0].split("/")[2]
    if url.netloc.startswith(f"{bucket}.") and url.path == f"/{_MARK}":
        return f"{url.scheme}://{url.netloc}", region, True
    if url.path.endswith(f"/{bucket}/{_MARK}"):
        return f"{url.scheme}://{url.netloc}{url.path.removesuffix(f'/{bucket}/{_MARK}')}", region, False
    return "the bucket is addressed in an unusual way"
