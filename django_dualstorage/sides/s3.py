"""The S3 side: the bucket, as the site's django-storages configuration describes it, over our own data path."""

from __future__ import annotations

import copy
import logging
import mimetypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from django_dualstorage import __version__
from django_dualstorage.core import sigv4
from django_dualstorage.core.names import key_of, name_of, why_not_on_s3
from django_dualstorage.core.objects import ListedObject, ObjectInfo, Written
from django_dualstorage.core.providers import Provider
from django_dualstorage.core.stamp import Stamp, stamp_metadata
from django_dualstorage.engine.boto import BotoStore, translated
from django_dualstorage.engine.breaker import CircuitBreaker
from django_dualstorage.engine.objectstore import ALWAYS, Body, Condition, ObjectStore, Source
from django_dualstorage.exceptions import S3Error, S3TransientError, S3UnavailableError, UnmovableError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

logger = logging.getLogger("django_dualstorage.s3")

_COMMON_PARAMETERS: Final = (
    "SSECustomerAlgorithm",
    "SSECustomerKey",
    "SSECustomerKeyMD5",
    "RequestPayer",
    "ExpectedBucketOwner",
)
_PROBE_KEY: Final = ".dualstorage-breaker-probe"
_MARK: Final = "dualstorage-mark"


class S3Configuration(Protocol):
    """What is used of django-storages' ``S3Storage``, or of the site's own subclass of it."""

    bucket_name: str
    location: str
    default_acl: str | None
    default_content_type: str
    client_config: Config
    region_name: str | None
    endpoint_url: str | None
    use_ssl: bool
    verify: Any
    custom_domain: str | None
    querystring_auth: bool
    querystring_expire: int

    def get_object_parameters(self, name: str) -> dict[str, Any]:
        """Parameters of the S3 API for an object to be written."""

    def url(
        self,
        name: str,
        parameters: dict[str, Any] | None = None,
        expire: int | None = None,
        http_method: str | None = None,
    ) -> str:
        """The public or presigned URL."""

    def _create_session(self) -> Any:
        """A boto3 session with the credentials configured."""


@dataclass(frozen=True)
class Timing:
    """How patient a request is. Seconds."""

    connect: float = 2.0
    read: float = 10.0
    #: Attempts of the client library. More than one makes an answer unclean if the first attempt failed.
    attempts: int = 1
    breaker_failures: int = 3
    breaker_interval: float = 5.0


class S3Side:
    """The objects below ``location`` in the bucket. Names are relative to MEDIA_ROOT; keys stay in here."""

    def __init__(
        self,
        configure: Callable[[], S3Configuration],
        provider: Provider,
        timing: Timing,
        conditional: Callable[[str], bool],
        *,
        makes_plain_urls: Callable[[S3Configuration], bool],
    ) -> None:
        """``conditional(identity)`` tells whether a live probe has seen the server honour conditional requests.

        ``makes_plain_urls``: whether the configuration's ``url()`` is django-storages' own, so that a presigned URL
        may be built here.
        """
        self._configure = configure
        self._provider = provider
        self._timing = timing
        self._conditional = conditional
        self._makes_plain_urls = makes_plain_urls
        self._lock, self._lock_pid = threading.Lock(), os.getpid()
        self._live: _Live | None = None
        self._wrap: Callable[[ObjectStore], ObjectStore] | None = None

    def through(self, wrap: Callable[[ObjectStore], ObjectStore]) -> S3Side:
        """This side with ``wrap(its engine)`` as its engine, and with the same client and breaker: for one command,
        while other threads of the process go on with the engine as it is.
        """
        other = copy.copy(self)
        other._wrap = wrap
        other._lock, other._lock_pid = threading.Lock(), os.getpid()
        other._live = self._connected().through(wrap)
        return other

    # -- who we talk to --------------------------------------------------------------------------------------------

    def _connected(self) -> _Live:
        """The client of this process. A fork must not share its parent's connections, nor its breaker's thread."""
        live = self._live
        if live is None or live.pid != os.getpid():
            if self._lock_pid != os.getpid():
                # Another thread of the parent may have held it at the fork, and nobody would ever release it here.
                self._lock, self._lock_pid = threading.Lock(), os.getpid()
            with self._lock:
                live = self._live
                if live is None or live.pid != os.getpid():
                    live = self._live = self._new_connection()
        return live

    def _new_connection(self) -> _Live:
        configuration = self._configure()
        try:
            live = _Live.connect(configuration, self._provider, self._timing)
        except BotoCoreError as error:
            raise translated(error, "connecting", f"the bucket {configuration.bucket_name}") from error
        return live if self._wrap is None else live.through(self._wrap)

    @property
    def configuration(self) -> S3Configuration:
        """The site's django-storages storage."""
        return self._connected().configuration

    @property
    def store(self) -> ObjectStore:
        """The engine, without breaker; for probes."""
        return self._connected().store

    @property
    def breaker(self) -> CircuitBreaker:
        """The circuit breaker of this process."""
        return self._connected().breaker

    @property
    def looks_dead(self) -> bool:
        """Whether this process has given S3 up for now. Connects to nothing."""
        live = self._live
        return live is not None and live.pid == os.getpid() and live.breaker.is_open

    @property
    def times_given_up(self) -> int:
        """How often the breaker of this process has opened. Connects to nothing."""
        live = self._live
        return live.breaker.openings if live is not None and live.pid == os.getpid() else 0

    @property
    def timing(self) -> Timing:
        """How patient its requests are."""
        return self._timing

    @property
    def identity(self) -> str:
        """Endpoint and bucket: what capabilities belong to."""
        live = self._connected()
        return f"{live.client.meta.endpoint_url}/{live.configuration.bucket_name}"

    @property
    def honours_conditions(self) -> bool:
        """Whether a live probe has seen this server honour ``If-None-Match`` and ``If-Match``."""
        return self._conditional(self.identity)

    def key(self, name: str) -> str:
        """The object key of ``name``. Raises UnmovableError for one that S3 cannot take."""
        key = key_of(name, self._connected().configuration.location)
        if why := why_not_on_s3(key):
            raise UnmovableError("bad-name", f"{name!r} {why}; rename the file")
        return key

    @contextmanager
    def _guarded(self, *, patient: bool) -> Iterator[_Live]:
        """Count the answer for the breaker; unless ``patient``, do not even ask while it is open."""
        live = self._connected()
        if live.breaker.is_open and not patient:
            raise S3UnavailableError("S3 failed repeatedly a moment ago and is left alone for now", sent=False)
        try:
            yield live
        except S3TransientError:
            live.breaker.failed()
            raise
        except S3Error as error:
            live.breaker.succeeded()
            if error.code == "NoCredentialsError":
                self._live = None  # a role's credentials may be there the next time
            raise
        live.breaker.succeeded()

    # -- the verbs -------------------------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        source: Source,
        stamp: Stamp,
        op_id: str,
        *,
        content_type: str = "",
        condition: Condition = ALWAYS,
        patient: bool,
        sending: Callable[[], None],
    ) -> Written:
        """Write the object of ``name``, certified as the copy of ``stamp``."""
        with self._guarded(patient=patient) as live:
            key = self.key(name)
            parameters = self.parameters(key, stamp, op_id, content_type)
            return live.store.put(key, source, parameters, condition, sending=sending)

    def delete(
        self, name: str, *, condition: Condition = ALWAYS, patient: bool, sending: Callable[[], None]
    ) -> Written:
        """Remove the object of ``name``."""
        with self._guarded(patient=patient) as live:
            return live.store.delete(self.key(name), condition, sending=sending)

    def restamp(
        self, info: ObjectInfo, stamp: Stamp, op_id: str, *, content_type: str, sending: Callable[[], None]
    ) -> Written:
        """Certify an object whose bytes were found equal, without sending them again."""
        with self._guarded(patient=True) as live:
            return live.store.restamp(info, self.parameters(info.key, stamp, op_id, content_type), sending=sending)

    def get(self, name: str, *, start: int = 0, etag: str | None = None, patient: bool) -> Body:
        """Read the object of ``name``."""
        with self._guarded(patient=patient) as live:
            return live.store.get(self.key(name), start=start, etag=etag)

    def head(self, name: str, *, patient: bool) -> ObjectInfo | None:
        """What the object of ``name`` is, None if there is none."""
        with self._guarded(patient=patient) as live:
            return live.store.head(self.key(name))

    def list_folder(self, folder: str, *, patient: bool) -> tuple[list[str], list[str]]:
        """Folder names and file names directly in ``folder``, without those that no disk can hold."""
        with self._guarded(patient=patient) as live:
            prefix = key_of(folder + "/" if folder else "", live.configuration.location)
            folders, keys = live.store.list_folder(prefix)
        names = [path[len(prefix) :].removesuffix("/") for path in folders]
        files = [key[len(prefix) :] for key in keys]
        return [name for name in names if name_of(name, "")], [name for name in files if name_of(name, "")]

    def list_all(self, prefix: str) -> Iterator[tuple[str, ListedObject]]:
        """Every object whose name begins with ``prefix``, with its name."""
        with self._guarded(patient=True) as live:
            location = live.configuration.location
            for listed in live.store.list_all(key_of(prefix, location)):
                name = name_of(listed.key, location)
                if name is not None:
                    yield name, listed

    def parameters(self, key: str, stamp: Stamp, op_id: str, content_type: str = "") -> dict[str, Any]:
        """What an object is written with: the same for the application, backfill and repair.

        The rule for what the site has not set is django-storages': the upload's own content type, else that of the
        name's ending; the encoding of the ending only along with its type.
        """
        configuration = self._connected().configuration
        parameters = dict(configuration.get_object_parameters(key))
        if "ContentType" not in parameters:
            guessed, encoding = mimetypes.guess_type(key)
            parameters["ContentType"] = content_type or guessed or configuration.default_content_type
            if encoding:
                parameters["ContentEncoding"] = encoding
        if "ACL" not in parameters and configuration.default_acl:
            parameters["ACL"] = configuration.default_acl
        parameters["Metadata"] = {**parameters.get("Metadata", {}), **stamp_metadata(stamp, op_id)}
        return parameters

    # -- URLs ------------------------------------------------------------------------------------------------------

    def url(
        self,
        name: str,
        parameters: Mapping[str, Any] | None = None,
        expire: int | None = None,
        http_method: str | None = None,
    ) -> str:
        """The URL of the object. Never asks the network."""
        live = self._connected()
        configuration = live.configuration
        presigned = configuration.querystring_auth and not configuration.custom_domain
        if presigned and name and self._makes_plain_urls(configuration) and not parameters and http_method is None:
            endpoint = live.presigning_endpoint()
            if endpoint is not None:
                seconds = configuration.querystring_expire if expire is None else int(expire)
                key = key_of(name, configuration.location)
                return sigv4.presign_get(endpoint, live.keys(), key, seconds=seconds, now=datetime.now(timezone.utc))
        return configuration.url(name, dict(parameters) if parameters else None, expire, http_method)


class _Live:
    """Client, engine and breaker of one process."""

    def __init__(
        self, configuration: S3Configuration, client: S3Client, credentials: Any, store: ObjectStore, timing: Timing
    ) -> None:
        self.pid = os.getpid()
        self.configuration = configuration
        self.client = client
        self.store = store
        self.breaker = CircuitBreaker(self._answers, failures=timing.breaker_failures, interval=timing.breaker_interval)
        self._credentials = credentials
        self._endpoint: sigv4.Endpoint | None = None
        self._endpoint_known = False

    @classmethod
    def connect(cls, configuration: S3Configuration, provider: Provider, timing: Timing) -> _Live:
        session = configuration._create_session()
        config = configuration.client_config.merge(
            Config(
                connect_timeout=timing.connect,
                read_timeout=timing.read,
                retries={"total_max_attempts": timing.attempts, "mode": "standard"},
                # What we send is decided per request; what we read is compared by stamps and, by verify, whole.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                max_pool_connections=64,
                # Left to itself the client library puts this together anew for every request, a tenth of its time.
                user_agent=f"Boto3/{boto3.__version__} django-dualstorage/{__version__}",
            )
        )
        client = session.client(
            "s3",
            region_name=configuration.region_name,
            use_ssl=configuration.use_ssl,
            endpoint_url=configuration.endpoint_url,
            verify=configuration.verify,
            config=config,
        )
        client.meta.events.register_last("before-call.s3", _send_body_at_once)
        common = {
            name: value for name, value in configuration.get_object_parameters("").items() if name in _COMMON_PARAMETERS
        }
        store = BotoStore(client, configuration.bucket_name, checksum=provider.checksum, common=common)
        return cls(configuration, client, session.get_credentials(), store, timing)

    def through(self, wrap: Callable[[ObjectStore], ObjectStore]) -> _Live:
        """The same with another engine around the engine."""
        other = copy.copy(self)
        other.store = wrap(self.store)
        return other

    def _answers(self) -> bool:
        try:
            self.store.get(_PROBE_KEY).close()
        except S3TransientError:
            return False
        except S3Error:
            return True  # a refusal is an answer
        return True

    def keys(self) -> sigv4.Keys:
        """The credentials of the moment; the session renews temporary ones."""
        frozen = self._credentials.get_frozen_credentials()
        return sigv4.Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def presigning_endpoint(self) -> sigv4.Endpoint | None:
        """Where presigned URLs point, learned once from one that the client library made; None if it signs otherwise
        (an older signature, an access point in several regions) and so has to make each one itself.
        """
        if not self._endpoint_known:
            self._endpoint = self._learned_endpoint()
            self._endpoint_known = True
        return self._endpoint

    def _learned_endpoint(self) -> sigv4.Endpoint | None:
        if self._credentials is None:
            return None
        url = urlsplit(
            self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self.configuration.bucket_name, "Key": _MARK}
            )
        )
        query = parse_qs(url.query)
        plain = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders"}
        known = plain | {"X-Amz-Signature", "X-Amz-Security-Token"}
        if (
            query.get("X-Amz-Algorithm") != ["AWS4-HMAC-SHA256"]
            or not set(query) <= known
            or query["X-Amz-SignedHeaders"] != ["host"]
        ):
            return None
        region = query["X-Amz-Credential"][0].split("/")[2]
        return sigv4.Endpoint(url.scheme, url.netloc, url.path.removesuffix(_MARK), region)


def _send_body_at_once(params: dict[str, Any], **_: Any) -> None:
    """Drop ``Expect: 100-continue``, by which the client asks the server's leave before it sends a body. It saves
    bytes when a large upload is refused; ours are in memory and at most one part long, and it costs a round trip each.
    """
    params["headers"].pop("Expect", None)
