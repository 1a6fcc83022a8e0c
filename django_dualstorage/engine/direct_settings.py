"""Whether the direct engine can stand in for a boto3 client, and with what settings."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import get_cert_path

from django_dualstorage.core.sigv4 import Endpoint, Keys
from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.http1 import Peer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

#: What a header can carry as it is, the same for everybody.
PLAIN: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_MARK: Final = "dualstorage-mark"
_PORTS: Final = {"http": 80, "https": 443}
_SIGNATURE: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=.+/\d{8}/([^/]+)/s3/aws4_request, *SignedHeaders=([^,]+), *Signature=[0-9a-f]+"
)
#: What we sign, too.
_SIGNED: Final = {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"}
_EVENT: Final = "before-send.s3.HeadObject"

#: Whether the request that this thread makes is only to be looked at; a client may have other users.
_mine = threading.local()


@dataclass(frozen=True)
class Settings:
    """What the direct engine is made of."""

    endpoint: Endpoint
    peer: Peer
    user_agent: str
    #: The credentials of the moment.
    keys: Callable[[], Keys] = field(repr=False)


def settings_of(store: BotoStore) -> Settings | str:
    """The settings by which the direct engine does what the client of ``store`` would do; else, why there are none."""
    client = store.client
    config: Any = client.meta.config
    for name in store.common:
        if name.startswith("SSECustomer"):
            return f"every request needs {name}"  # the client library computes what goes with it
    signer: Any = getattr(client, "_request_signer", None)
    credentials = getattr(signer, "_credentials", None)
    if credentials is None:
        return "it has no credentials"
    endpoint = _endpoint(client, store.bucket)
    if isinstance(endpoint, str):
        return endpoint
    session: Any = getattr(getattr(client, "_endpoint", None), "http_session", None)
    proxies = getattr(session, "_proxy_config", None)
    # As the client library found them when the client was made: configured or in the environment, NO_PROXY considered.
    if proxies is None or proxies.proxy_url_for(f"{endpoint.scheme}://{endpoint.host}/"):
        return "a proxy is configured"
    if getattr(session, "_cert_file", "unknown") is not None:
        return "it shows a certificate of its own"
    tls = _tls(getattr(session, "_verify", None)) if endpoint.scheme == "https" else None
    if isinstance(tls, str):
        return tls
    if not PLAIN.fullmatch(str(config.user_agent)):
        return "its User-Agent is not printable ASCII"
    place = urlsplit(f"//{endpoint.host}")
    return Settings(
        endpoint=endpoint,
        peer=Peer(
            host=str(place.hostname),
            port=place.port or _PORTS[endpoint.scheme],
            connect_timeout=float(config.connect_timeout),
            read_timeout=float(config.read_timeout),
            tls=tls,
        ),
        user_agent=str(config.user_agent),
        keys=_Renewed(credentials),
    )


class _Renewed:
    """Asks for the credentials each time, since temporary ones are renewed by being asked for."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._last: tuple[Any, Keys] | None = None

    def __call__(self) -> Keys:
        frozen = self._credentials.get_frozen_credentials()
        last = self._last
        if last is None or last[0] != frozen:
            last = self._last = (frozen, Keys(frozen.access_key, frozen.secret_key, frozen.token))
        return last[1]


def _tls(verify: Any) -> ssl.SSLContext | str:
    """What the client library trusts: for True its own bundle, else a file of the configuration or environment.

    Not ``ssl.create_default_context()``, whose strictness since Python 3.13 refuses certificates that it would take.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    if verify is not True and not isinstance(verify, str):
        return "it is not known which certificates it trusts"
    try:
        context.load_verify_locations(get_cert_path(True) if verify is True else verify)
    except OSError as error:
        return f"the certificates that it trusts cannot be read ({error.strerror or type(error).__name__})"
    return context


class _TakenError(Exception):
    """Instead of sending it. Has no text, since that would be logged."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


def _take(request: Any, **_: Any) -> None:
    if getattr(_mine, "looking", False):
        raise _TakenError(request)


def _endpoint(client: S3Client, bucket: str) -> Endpoint | str:
    """Read off a request that the client makes and signs but does not send: addressing, region, scope, path.

    Not a presigned URL: for the older regions those have an older signature than requests.
    """
    # Idempotent by its id.
    client.meta.events.register(_EVENT, _take, unique_id="django-dualstorage-direct")
    _mine.looking = True
    try:
        client.head_object(Bucket=bucket, Key=_MARK)
    except _TakenError as taken:
        return _read_off(urlsplit(taken.request.url), taken.request.headers)
    except (BotoCoreError, ClientError, ValueError) as error:
        return f"its endpoint is not known ({type(error).__name__})"
    finally:
        _mine.looking = False
    return "its requests cannot be looked at"


def _read_off(url: SplitResult, headers: Any) -> Endpoint | str:
    signature = headers.get("Authorization", "")
    signature = signature.decode("latin-1") if isinstance(signature, bytes) else str(signature)
    found = _SIGNATURE.fullmatch(signature)
    if found is None:
        return "it signs in another way than AWS4-HMAC-SHA256"
    if not set(found[2].split(";")) <= _SIGNED:
        return "it signs headers of its own"
    if url.query or url.scheme not in _PORTS or "@" in url.netloc or not url.path.endswith(f"/{_MARK}"):
        return "the bucket is addressed in an unusual way"
    return Endpoint(url.scheme, url.netloc, url.path.removesuffix(_MARK), found[1])
