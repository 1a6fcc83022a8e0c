"""The fast engine: obstore (Rust's ``object_store``) for PUT, GET and HEAD; the boto3 engine for all it cannot say.

Its runtime does not survive a fork, so a store belongs to the process that made it: to commands and task workers.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from django_dualstorage.core.objects import ListedObject, ObjectInfo, Written
from django_dualstorage.engine.boto import MAX_PARTS, MIB, BotoStore, demand_whole, refusal, warn_of_parts
from django_dualstorage.engine.listing import Around, once
from django_dualstorage.engine.objectstore import ALWAYS, Body, Condition, Source
from django_dualstorage.engine.rust_settings import Settings
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3PreconditionError, S3TransientError

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Store

_ATTRIBUTES: Final = {
    "ContentType": "Content-Type",
    "ContentEncoding": "Content-Encoding",
    "ContentDisposition": "Content-Disposition",
    "ContentLanguage": "Content-Language",
    "CacheControl": "Cache-Control",
    "StorageClass": "Storage-Class",
}
_STANDARD: Final = frozenset(_ATTRIBUTES.values())
_SSE: Final = ("ServerSideEncryption", "SSEKMSKeyId")
_METADATA_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
#: What a header can carry as it is; a line break would make the library panic.
_PLAIN: Final = re.compile(r"[!-~]([ -~]*[!-~])?")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")

_PARTS_AT_ONCE: Final = 3
#: Each holds up to :data:`_PARTS_AT_ONCE` parts and two more on their way.
_LARGE_FILES_AT_ONCE: Final = 2
#: Uploads share clients by their size, because a client has one time limit for a request and its body together.
_SIZE_CLASSES: Final = (256 * 1024, 4 * MIB, 16 * MIB)
#: An upload may be as slow as this, in bytes per second, before it counts as stuck.
_SLOWEST: Final = 32 * 1024
_CHUNK: Final = 256 * 1024
_LONG: Final = timedelta(days=7)
_NEVER: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)

_STATUS: Final = re.compile(r"^ +inner: Status \{\n +status: (\d{3}),", re.MULTILINE)
_KIND: Final = re.compile(r"^ +inner: Http\(\n +HttpError \{\n +kind: (\w+),", re.MULTILINE)
_BARE_REDIRECT: Final = re.compile(r"^ +inner: BareRedirect,", re.MULTILINE)
_ABORTING: Final = re.compile(r"^ +method: DELETE,", re.MULTILINE)
_CODE: Final = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
#: The bucket is elsewhere; the boto3 client finds out where and goes there.
_ELSEWHERE: Final = ("AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect")


#: The process that obstore's runtime was born in, with its first request; a forked child has no threads of it.
_runtime_pid: int | None = None


class ForkedError(ImportError):
    """obstore has been used before this process was forked, and would wait for ever for threads that are not there."""


class RustStore:
    """An :class:`~django_dualstorage.engine.objectstore.ObjectStore` on obstore, where obstore will do.

    Every request is sent once, so ``Written.clean`` is exact.
    """

    def __init__(self, complete: BotoStore, settings: Settings) -> None:
        """``settings`` come from :func:`~django_dualstorage.engine.rust_settings.settings_of`, ``complete`` is the
        engine that they were taken from. Raises ImportError if obstore cannot be imported, ForkedError if it is of
        no use in this process.
        """
        import obstore

        global _runtime_pid
        _runtime_pid = _runtime_pid or os.getpid()
        if _runtime_pid != os.getpid():
            raise ForkedError("it was used in the process that this one was forked from")

        self._obstore = obstore
        self._complete = complete
        self._settings = settings
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores: dict[tuple[int, tuple[str, ...]], S3Store] = {}
        self._large = threading.BoundedSemaphore(_LARGE_FILES_AT_ONCE)
        #: Set once an answer shows that the boto3 client has to do it all.
        self._unfit = False

    def expresses(self, parameters: Mapping[str, Any]) -> bool:
        """Whether an object with these parameters of the S3 API would come out the same."""
        return why_inexpressible(parameters) is None

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: Source,
        parameters: Mapping[str, Any],
        condition: Condition = ALWAYS,
        *,
        sending: Callable[[], None],
    ) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        large = source.size >= self._complete.multipart_threshold
        # obstore has no conditions for uploads in parts, and what it sends of one says nothing to a server that
        # checks MD5 only.
        inexpressible = large and (condition != ALWAYS or self._settings.checksum == "md5")
        if inexpressible or not self._can(key) or not self.expresses(parameters):
            with self._large if large else nullcontext():
                return self._complete.put(key, source, parameters, condition, sending=sending)
        try:
            if large:
                return self._put_in_parts(key, source, parameters, sending)
            return self._put_whole(key, source, parameters, condition, sending)
        except _ElsewhereError:
            return self._complete.put(key, source, parameters, condition, sending=sending)

    def _put_whole(
        self, key: str, source: Source, parameters: Mapping[str, Any], condition: Condition, sending: Callable[[], None]
    ) -> Written:
        body = source.read_all()
        demand_whole(key, len(body), source.size)
        store = self._store(len(body), parameters)
        sending()
        try:
            answer = self._obstore.put(
                store, key, body, attributes=_attributes(parameters), mode=_mode(condition), use_multipart=False
            )
        except BaseException as error:
            raise self._translated(error, "PUT", key) from error
        etag = answer["e_tag"]
        if not etag:
            raise S3TransientError(
                f"The answer to writing {key} has no ETag, so it is not S3's; look at proxies between"
            )
        if self._settings.checksum == "md5" and etag.strip('"') != hashlib.md5(body, usedforsecurity=False).hexdigest():
            # Not this server's habit, or not these bytes: sent again with a checksum that it does verify.
            self._unfit = True
            again = ALWAYS if condition == ALWAYS else Condition(etag=etag)
            return self._complete.put(key, source, parameters, again, sending=sending)
        return Written(True, etag)

    def _put_in_parts(
        self, key: str, source: Source, parameters: Mapping[str, Any], sending: Callable[[], None]
    ) -> Written:
        size = max(self._complete.part_size, -(-source.size // MAX_PARTS))

        def parts() -> Iterator[memoryview]:
            for start in range(0, source.size, size):
                wanted = min(size, source.size - start)
                part = memory.part(wanted)
                demand_whole(key, source.read_into(part, start), wanted)
                yield part
                del part
            # Only after this can the parts become an object, though some of them may still be under way.
            sending()

        memory = _Memory(size)
        with self._large:
            try:
                answer = self._obstore.put(
                    self._store(source.size, parameters),
                    key,
                    parts(),
                    attributes=_attributes(parameters),
                    use_multipart=True,
                    chunk_size=size,
                    max_concurrency=_PARTS_AT_ONCE,
                )
            except S3Error:
                raise
            except BaseException as error:
                ours = self._translated(error, "upload in parts", key)
                if _ABORTING.search(str(error)):
                    warn_of_parts(key, ours)
                raise ours from error
        return Written(True, answer["e_tag"] or "")

    def delete(self, key: str, condition: Condition = ALWAYS, *, sending: Callable[[], None]) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._complete.delete(key, condition, sending=sending)

    def restamp(self, info: ObjectInfo, parameters: Mapping[str, Any], *, sending: Callable[[], None]) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._complete.restamp(info, parameters, sending=sending)

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, etag: str | None = None) -> Body:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        if not self._can(key):
            return self._complete.get(key, start=start, etag=etag)
        options: GetOptions = {}
        if start:
            options["range"] = {"offset": start}
        if etag is not None:
            options["if_match"] = etag
        try:
            result = self._asked(key, "GET", options)
        except _ElsewhereError:
            return self._complete.get(key, start=start, etag=etag)
        info = _info(key, result)
        if start and result.range[0] != start:
            raise S3TransientError(f"S3 was asked for {key} from byte {start} and answered with something else")
        if etag is not None and info.etag != etag:
            raise S3PreconditionError(f"S3 was asked for the version {etag} of {key} and answered with another")
        return _RustBody(info, result)

    def head(self, key: str) -> ObjectInfo | None:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        if not self._can(key):
            return self._complete.head(key)
        try:
            return _info(key, self._asked(key, "HEAD", {"head": True}))
        except _ElsewhereError:
            return self._complete.head(key)
        except S3Error as error:
            if error.status != 404:
                raise
        try:
            body = self.get(key)
        except S3NotFoundError:
            return None
        body.close()  # it came into being between the two requests
        return body.info

    def _asked(self, key: str, operation: str, options: GetOptions) -> Any:
        try:
            return self._obstore.get(self._store(0, {}), key, options=options)
        except BaseException as error:
            if "Metadata {" in str(error):  # a header that it cannot read, such as metadata beyond ASCII
                raise _ElsewhereError(key) from error
            raise self._translated(error, operation, key) from error

    def list_all(self, prefix: str, around: Around = once) -> Iterator[ListedObject]:
        """See :class:`~django_dualstorage.engine.retry.PagedStore`."""
        return self._complete.list_all(prefix, around)

    def list_folder(self, prefix: str) -> tuple[list[str], list[str]]:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        return self._complete.list_folder(prefix)

    # -- the library -----------------------------------------------------------------------------------------------

    def _can(self, key: str) -> bool:
        """Whether obstore would take this key as it is, here and now: it trims and refuses some."""
        if self._unfit or self._pid != os.getpid() or _UNPRINTABLE.search(key):
            return False
        return all(part not in {"", ".", ".."} for part in key.split("/"))

    def _store(self, size: int, parameters: Mapping[str, Any]) -> S3Store:
        """The client for a body of ``size`` bytes, 0 for reading."""
        limit = next((limit for limit in _SIZE_CLASSES if size <= limit), _SIZE_CLASSES[-1]) if size else 0
        encryption = tuple(str(parameters.get(name, "")) for name in _SSE)
        with self._lock:
            if (limit, encryption) not in self._stores:
                self._stores[limit, encryption] = self._new_store(limit, *encryption)
            return self._stores[limit, encryption]

    def _new_store(self, limit: int, encryption: str, kms_key: str) -> S3Store:
        from obstore.store import S3Store

        settings = self._settings
        client: dict[str, Any] = {
            "allow_http": settings.endpoint.startswith("http:"),
            "allow_invalid_certificates": not settings.verify,
            "connect_timeout": timedelta(seconds=settings.connect_timeout),
            "user_agent": settings.user_agent,
            "http1_only": True,
        }
        if limit:
            client["timeout"] = timedelta(seconds=settings.connect_timeout + settings.read_timeout + limit / _SLOWEST)
        else:
            client |= {"timeout": _LONG, "read_timeout": timedelta(seconds=settings.read_timeout)}
        config: dict[str, Any] = {
            # All of these would else be taken from the environment.
            "endpoint": settings.endpoint,
            "aws_endpoint_url_s3": settings.endpoint,
            "region": settings.region,
            "virtual_hosted_style_request": settings.virtual_hosted,
            "request_payer": False,
            "s3_express": False,
            "skip_signature": False,
            "unsigned_payload": False,
            "conditional_put": "etag",
        }
        # The hash that the signature needs anyway, so it costs nothing.
        if settings.checksum == "sha256":
            config["checksum_algorithm"] = "SHA256"
        if encryption:
            config["server_side_encryption"] = encryption
        if kms_key:
            config["sse_kms_key_id"] = kms_key
        return S3Store(
            settings.bucket,
            client_options=client,  # type: ignore[arg-type]  # built step by step
            retry_config={"max_retries": 0},
            credential_provider=settings.credential,  # type: ignore[arg-type]  # a plain dict is what it wants
            **config,
        )

    def _translated(self, error: BaseException, operation: str, key: str) -> S3Error:
        """Our error for one of the library's, in the words and by the rules of the boto3 engine.

        Raises _ElsewhereError if that engine can do better, and what is not the library's as it is. The library's
        text holds URLs, so none of it is shown.
        """
        text = str(error)
        if found := _STATUS.search(text):
            status = int(found[1])
            code = (_CODE.search(text, found.end()) or (None, str(status)))[1]
            if 300 <= status < 400 or code in _ELSEWHERE:
                self._unfit = True
                raise _ElsewhereError(key) from error
            return refusal(status, code, "", operation, key)
        if _BARE_REDIRECT.search(text):
            self._unfit = True
            raise _ElsewhereError(key) from error
        if found := _KIND.search(text):
            return S3TransientError(
                f"S3 gave no answer to {operation} of {key}: {found[1]}", code=found[1], sent=found[1] != "Connect"
            )
        if isinstance(error, Exception) and (isinstance(error, OSError) or _is_of_library(error)):
            return S3TransientError(f"S3 gave no usable answer to {operation} of {key}", code=type(error).__name__)
        if type(error).__name__ == "PanicException":
            return S3Error(f"obstore failed at {operation} of {key}; use the boto3 engine", code="PanicException")
        raise error


class _ElsewhereError(Exception):
    """Nothing was done; the boto3 engine has to do it."""


class _Memory:
    """Memory for the parts of one upload, used again as soon as a part is sent: the heap would keep far more."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: deque[mmap.mmap] = deque()

    def part(self, size: int) -> memoryview:
        """``size`` bytes, whose memory comes back here with the last reference to them."""
        try:
            block = self._free.pop()
        except IndexError:
            block = mmap.mmap(-1, self._size)
        part = memoryview(block)[:size]
        weakref.finalize(part, self._free.append, block).atexit = False
        return part


class _RustBody:
    def __init__(self, info: ObjectInfo, result: Any) -> None:
        self.info = info
        self._result = result
        self._chunks: Iterator[bytes] | None = None
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        if self._result is None:
            return b""
        try:
            if size < 0 and self._chunks is None:
                content: bytes = self._result.bytes().to_bytes()
                self.close()
                return content
            return self._next(size)
        except Exception as error:
            if not _is_of_library(error):
                raise
            # The library's text holds the URL.
            raise S3TransientError(f"S3's answer for {self.info.key} broke off") from error

    def _next(self, size: int) -> bytes:
        if self._chunks is None:
            self._chunks = iter(self._result.stream(min_chunk_size=_CHUNK))
        parts = [self._rest]
        found = len(self._rest)
        while size < 0 or found < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            parts.append(bytes(chunk))
            found += len(parts[-1])
        content = b"".join(parts)
        if size < 0:
            size = found
        self._rest = content[size:]
        return content[:size]

    def close(self) -> None:
        """The connection goes with the last reference to the answer."""
        self._result = self._chunks = None
        self._rest = b""


def why_inexpressible(parameters: Mapping[str, Any]) -> str | None:
    """What of these parameters obstore cannot send as the boto3 client would; None if it can."""
    for name, value in parameters.items():
        if name == "Metadata":
            for field, content in value.items():
                if not (_METADATA_NAME.fullmatch(field) and isinstance(content, str) and _PLAIN.fullmatch(content)):
                    return f"the metadata {field}"
                if field.title() in _STANDARD:
                    return f"the metadata {field}"
        elif name in _SSE:
            if name == "ServerSideEncryption" and value != "AES256" and not parameters.get("SSEKMSKeyId"):
                return f"the parameter {name}"
        elif name not in _ATTRIBUTES or not isinstance(value, str) or not _PLAIN.fullmatch(value):
            return f"the parameter {name}"
    # The server would guess one, each library would help in its own way.
    return None if "ContentType" in parameters else "a missing ContentType"


def _attributes(parameters: Mapping[str, Any]) -> dict[str, str]:
    named = {_ATTRIBUTES[name]: value for name, value in parameters.items() if name in _ATTRIBUTES}
    return {**named, **parameters.get("Metadata", {})}


def _mode(condition: Condition) -> Any:
    if condition.absent:
        return "create"
    return {"e_tag": condition.etag} if condition.etag else "overwrite"


def _info(key: str, result: Any) -> ObjectInfo:
    """Raises S3TransientError for an answer that is not S3's."""
    meta, attributes = result.meta, result.attributes
    if not meta["e_tag"] or meta["last_modified"] == _NEVER:
        raise S3TransientError(f"The answer to reading {key} has no ETag, so it is not S3's; look at proxies between")
    return ObjectInfo(
        key=key,
        size=meta["size"],
        etag=meta["e_tag"],
        last_modified=meta["last_modified"],
        content_type=attributes.get("Content-Type", ""),
        content_encoding=attributes.get("Content-Encoding", ""),
        metadata={name.lower(): value for name, value in attributes.items() if name not in _STANDARD},
    )


def _is_of_library(error: Exception) -> bool:
    return type(error).__module__.startswith("obstore") or "Debug source" in str(error)
