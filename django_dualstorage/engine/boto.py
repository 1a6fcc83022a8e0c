"""The complete engine: the boto3 client, called directly rather than through its managed transfers.

Managed transfers cannot carry ``If-None-Match``, retry on their own, and cost four times the CPU of ``put_object``.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, ThreadPoolExecutor, wait
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, cast

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import (
    ConnectionError as UnconnectedError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from django_dualstorage.core.objects import ListedObject, ObjectInfo, Written
from django_dualstorage.engine.listing import Around, Page, once, pages
from django_dualstorage.engine.objectstore import ALWAYS, Body, Condition, Source
from django_dualstorage.exceptions import (
    S3Error,
    S3NotFoundError,
    S3PreconditionError,
    S3TransientError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

logger = logging.getLogger("django_dualstorage.s3")

MIB: Final = 1024 * 1024
#: "Amazon S3 multipart upload limits": 10,000 parts, each but the last of 5 MiB or more.
MAX_PARTS: Final = 10_000
PART_SIZE: Final = 8 * MIB
MULTIPART_THRESHOLD: Final = 16 * MIB
_PART_THREADS: Final = 3

_SSE_C: Final = ("SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5")
_THROTTLES: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "RequestLimitExceeded"})
_NOT_SENT: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    ParamValidationError,
    ConnectTimeoutError,
    ProxyConnectionError,
    SSLError,
)


Part = dict[str, Any]
"""What completing an upload in parts needs to know of one."""

AroundPart = Callable[[Callable[[], Part], int], Part]
"""Sends a part by the function given, be it with several calls. The number: its size in bytes."""


def part_once(call: Callable[[], Part], size: int) -> Part:
    """The :data:`AroundPart` that just calls."""
    return call()


class BotoStore:
    """An :class:`~django_dualstorage.engine.objectstore.ObjectStore` on a boto3 client."""

    def __init__(
        self,
        client: S3Client,
        bucket: str,
        *,
        checksum: str = "sha256",
        common: Mapping[str, Any] | None = None,
        multipart_threshold: int = MULTIPART_THRESHOLD,
        part_size: int = PART_SIZE,
    ) -> None:
        """``checksum`` is what the server verifies of each upload: ``sha256`` or, for servers that refuse the newer
        headers, ``md5``. ``common`` are parameters that every request on an object needs (SSE-C keys, RequestPayer).
        """
        self.client = client
        self.bucket = bucket
        self.checksum = checksum
        self.common = dict(common or {})
        self.multipart_threshold = multipart_threshold
        self.part_size = part_size

    # -- writing ---------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: Source,
        parameters: Mapping[str, Any],
        condition: Condition = ALWAYS,
        *,
        sending: Callable[[], None],
        around: AroundPart = part_once,
    ) -> Written:
        """See :class:`~django_dualstorage.engine.retry.PagedStore`."""
        if source.size >= self.multipart_threshold:
            return self._put_in_parts(key, source, parameters, condition, sending, around)
        body = source.read_all()
        demand_whole(key, len(body), source.size)
        sending()
        answer = self._call(
            "put_object",
            key,
            Body=body,
            **{**self._fitting("PutObject", parameters), **self._digest(body), **_conditions(condition)},
        )
        return _written(key, answer, answer)

    def _put_in_parts(
        self,
        key: str,
        source: Source,
        parameters: Mapping[str, Any],
        condition: Condition,
        sending: Callable[[], None],
        around: AroundPart,
    ) -> Written:
        size = max(self.part_size, -(-source.size // MAX_PARTS))
        opening = dict(self._fitting("CreateMultipartUpload", parameters))
        if self.checksum == "sha256":
            opening["ChecksumAlgorithm"] = "SHA256"
        upload_id = self._call("create_multipart_upload", key, **opening)["UploadId"]
        common = self._fitting("UploadPart", parameters)

        failed = threading.Event()

        def send(number: int) -> Part:
            start = (number - 1) * size
            length = min(size, source.size - start)

            def attempt() -> Part:
                if failed.is_set():
                    raise CancelledError  # heard by nobody: the upload has ended with another error
                body = source.read(start, length)
                demand_whole(key, len(body), length)
                answer = self._call(
                    "upload_part", key, UploadId=upload_id, PartNumber=number, Body=body, **self._digest(body), **common
                )
                part = {"PartNumber": number, "ETag": _etag(key, answer)}
                if "ChecksumSHA256" in answer and self.checksum == "sha256":
                    part["ChecksumSHA256"] = answer["ChecksumSHA256"]
                return part

            return around(attempt, length)

        parts: list[Part] = []
        try:
            with ThreadPoolExecutor(_PART_THREADS, thread_name_prefix="dualstorage-part") as pool:
                try:
                    # Never more than are sent at once, because a process that ends still sends what is in the queue.
                    numbers = iter(range(1, -(-source.size // size) + 1))
                    under_way = {pool.submit(send, number) for number in islice(numbers, _PART_THREADS)}
                    while under_way:
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        parts += [future.result() for future in done]
                        under_way |= {pool.submit(send, number) for number in islice(numbers, len(done))}
                except BaseException:
                    failed.set()
                    raise
            parts.sort(key=itemgetter("PartNumber"))
            sending()
            answer = self._call(
                "complete_multipart_upload",
                key,
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                **_conditions(condition),
                **self._fitting("CompleteMultipartUpload", {}),
            )
        except BaseException:
            self._abort(key, upload_id)
            raise
        return _written(key, answer, answer)

    def _abort(self, key: str, upload_id: str) -> None:
        try:
            self._call("abort_multipart_upload", key, UploadId=upload_id, **self._fitting("AbortMultipartUpload", {}))
        except S3Error as error:
            warn_of_parts(key, error)

    def delete(self, key: str, condition: Condition = ALWAYS, *, sending: Callable[[], None]) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        sending()
        answer = self._call("delete_object", key, **_conditions(condition), **self._fitting("DeleteObject", {}))
        return Written(_is_clean(answer))

    def restamp(self, info: ObjectInfo, parameters: Mapping[str, Any], *, sending: Callable[[], None]) -> Written:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        copied = self._fitting("CopyObject", parameters)
        if "Tagging" in copied:
            copied["TaggingDirective"] = "REPLACE"
        # An object encrypted with the site's own key (SSE-C) can only be read with it, be it by a copy.
        copied.update({f"CopySource{name}": value for name, value in self.common.items() if name in _SSE_C})
        sending()
        answer = self._call(
            "copy_object",
            info.key,
            CopySource={"Bucket": self.bucket, "Key": info.key},
            CopySourceIfMatch=info.etag,
            MetadataDirective="REPLACE",
            **copied,
        )
        return _written(info.key, answer, answer.get("CopyObjectResult", {}))

    # -- reading ---------------------------------------------------------------------------------------------------

    def get(self, key: str, *, start: int = 0, etag: str | None = None) -> Body:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        parameters = self._fitting("GetObject", {})
        if start:
            parameters["Range"] = f"bytes={start}-"
        if etag is not None:
            parameters["IfMatch"] = etag
        answer = self._call("get_object", key, **parameters)
        try:
            info = _info(key, answer)
            # Some servers and proxies answer as if they had not been asked for a part, or for a version.
            if start and not str(answer.get("ContentRange", "")).startswith(f"bytes {start}-"):
                raise S3TransientError(f"S3 was asked for {key} from byte {start} and answered with something else")
            if etag is not None and info.etag != etag:
                raise S3PreconditionError(f"S3 was asked for the version {etag} of {key} and answered with another")
        except S3Error:
            answer["Body"].close()
            raise
        return _BotoBody(info, answer["Body"])

    def head(self, key: str) -> ObjectInfo | None:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        try:
            return _info(key, self._call("head_object", key, **self._fitting("HeadObject", {})))
        except S3Error as error:
            if error.status != 404:
                raise
        try:
            body = self.get(key)
        except S3NotFoundError:
            return None
        body.close()  # it came into being between the two requests
        return body.info

    def list_all(self, prefix: str, around: Around = once) -> Iterator[ListedObject]:
        """See :class:`~django_dualstorage.engine.retry.PagedStore`."""
        for page in self._pages(around, Prefix=prefix):
            yield from page.objects

    def list_folder(self, prefix: str) -> tuple[list[str], list[str]]:
        """See :class:`~django_dualstorage.engine.objectstore.ObjectStore`."""
        folders: list[str] = []
        keys: list[str] = []
        for page in self._pages(once, Prefix=prefix, Delimiter="/"):
            folders += page.folders
            keys += [listed.key for listed in page.objects]
        return folders, keys

    def _pages(self, around: Around, **parameters: Any) -> Iterator[Page]:
        def call(request: dict[str, Any]) -> dict[str, Any]:
            return self._call("list_objects_v2", None, **request)

        request = {**self._fitting("ListObjectsV2", {}), **parameters}
        return pages(self.client, call, request, f"the bucket {self.bucket}", around)

    # -- the client ------------------------------------------------------------------------------------------------

    def _call(self, operation: str, key: str | None, **parameters: Any) -> dict[str, Any]:
        if key is not None:
            parameters["Key"] = key
        try:
            return cast("dict[str, Any]", getattr(self.client, operation)(Bucket=self.bucket, **parameters))
        except (ClientError, BotoCoreError, HTTPError, ResponseParserError, OSError) as error:
            raise translated(error, operation, key or f"the bucket {self.bucket}") from error

    def _fitting(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters that this API operation knows, those common to all requests included."""
        shape = self.client.meta.service_model.operation_model(operation).input_shape
        known = shape.members if shape is not None else {}
        return {
            name: value
            for name, value in {**self.common, **parameters}.items()
            if name in known and name != "ChecksumAlgorithm"  # ours is the one that goes with the checksum sent
        }

    def _digest(self, body: bytes) -> dict[str, str]:
        if self.checksum == "md5":
            md5 = hashlib.md5(body, usedforsecurity=False).digest()
            return {"ContentMD5": base64.b64encode(md5).decode()}
        # As a header of our own: left to the client library it becomes a trailer of a chunked body, which several
        # servers refuse.
        return {"ChecksumSHA256": base64.b64encode(hashlib.sha256(body).digest()).decode()}


class _BotoBody:
    def __init__(self, info: ObjectInfo, stream: Any) -> None:
        self.info = info
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        try:
            return cast("bytes", self._stream.read(None if size < 0 else size))
        except (BotoCoreError, HTTPError, OSError) as error:
            raise S3TransientError(f"S3's answer for {self.info.key} broke off: {error}") from error

    def close(self) -> None:
        self._stream.close()


def translated(error: Exception, operation: str, what: str) -> S3Error:
    """Our error for one of the client library's, which it keeps as its cause."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        code = str(details.get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = str(details.get("Message", "no message"))
        retried = bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts"))
        return refusal(status, code, said, operation, what, retried=retried)
    sent = not isinstance(error, _NOT_SENT) and not _never_connected(error)
    transient = isinstance(error, (UnconnectedError, ReadTimeoutError, HTTPError, OSError)) or sent
    shown = "no credentials were found" if isinstance(error, NoCredentialsError) else str(error)
    return (S3TransientError if transient else S3Error)(
        f"S3 gave no answer to {operation} of {what}: {shown}", code=type(error).__name__, sent=sent
    )


def refusal(status: int, code: str, said: str, operation: str, what: str, *, retried: bool = False) -> S3Error:
    """Our error for an answer that is not 2xx: its HTTP status, S3's error code and, if any, its message."""
    kind: type[S3Error] = S3Error
    if code == "NoSuchKey":
        kind = S3NotFoundError
    elif status == 412 or code == "PreconditionFailed":
        kind = S3PreconditionError
    elif (status >= 500 and status != 501) or status in {408, 409, 429} or code in _THROTTLES:
        kind = S3TransientError
    # To HEAD there is no body and so no code; the client library gives the status as the code.
    answer = f"{status} {code}" if code and code != str(status) else str(status)
    message = f"S3 answered {answer} to {operation} of {what}"
    return kind(f"{message}: {said}" if said else message, code=code, status=status, retried=retried)


def _never_connected(error: Exception) -> bool:
    # "Connection refused" and a name that does not resolve arrive under this one name; a connection closed while
    # waiting for the answer has another.
    return type(error).__name__ == "EndpointConnectionError"


def _is_clean(answer: Mapping[str, Any]) -> bool:
    meta = answer["ResponseMetadata"]
    return not meta.get("RetryAttempts") and 200 <= meta["HTTPStatusCode"] < 300


def _written(key: str, answer: Mapping[str, Any], result: Mapping[str, Any]) -> Written:
    """Raises S3TransientError for a success without an ETag, such as a proxy's page for humans: nobody wrote it."""
    return Written(_is_clean(answer), _etag(key, result))


def _etag(key: str, result: Mapping[str, Any]) -> str:
    if not result.get("ETag"):
        raise S3TransientError(f"The answer to writing {key} has no ETag, so it is not S3's; look at proxies between")
    return str(result["ETag"])


def _info(key: str, answer: Mapping[str, Any]) -> ObjectInfo:
    """Raises S3TransientError for an answer that is not S3's."""
    if not answer.get("ETag") or "LastModified" not in answer or "ContentLength" not in answer:
        raise S3TransientError(f"The answer to reading {key} has no ETag, so it is not S3's; look at proxies between")
    size = answer["ContentLength"]
    if content_range := answer.get("ContentRange"):
        size = int(content_range.rpartition("/")[2])
    return ObjectInfo(
        key=key,
        size=size,
        etag=answer["ETag"],
        last_modified=answer["LastModified"],
        content_type=answer.get("ContentType", ""),
        content_encoding=answer.get("ContentEncoding", ""),
        metadata={name.lower(): value for name, value in answer.get("Metadata", {}).items()},
    )


def _conditions(condition: Condition) -> dict[str, str]:
    if condition.absent:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": condition.etag} if condition.etag else {}


def warn_of_parts(key: str, error: S3Error) -> None:
    """Log that an interrupted upload could not be aborted."""
    logger.warning(
        "The parts of an interrupted upload of %s stay on S3 until the bucket's lifecycle rule "
        "(AbortIncompleteMultipartUpload) removes them: %s",
        key,
        error,
    )


def demand_whole(key: str, found: int, expected: int) -> None:
    """Raises S3Error if the local file is not as long as it was when its upload was decided upon."""
    if found != expected:
        raise S3Error(
            f"{key}: the local file has {found} bytes where {expected} were expected; nothing sent", sent=False
        )
