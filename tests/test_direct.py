"""The direct engine: what it must leave to the client library, and what its errors say."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import ClientError, CredentialRetrievalError, EndpointConnectionError, MetadataRetrievalError

from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.choice import Choice, choose
from django_dualstorage.engine.direct import DirectStore
from django_dualstorage.engine.direct_settings import settings_of
from django_dualstorage.engine.objectstore import Body, Condition, Source
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3PreconditionError, S3TransientError
from django_dualstorage.sides.s3 import _send_body_at_once
from tests.support.endpoint import new_bucket_name
from tests.support.fork import run_in_child
from tests.support.moto import MotoServer
from tests.support.proxy import BlackHole, FaultProxy, LostAnswer, Refused, Status, Truncated
from tests.support.seaweed import SeaweedServer

TYPED = {"ContentType": "text/x-test"}
#: The most that the errors of a request may show of where it went.
SECRETS = ("http://", "127.0.0.1", "AWS4", "uploadId")


def nothing() -> None:
    """Nobody notes that a request leaves."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Callable[[bytes], Source]]:
    fds: list[int] = []

    def make(data: bytes) -> Source:
        path = tmp_path / f"source-{len(fds)}"
        path.write_bytes(data)
        fds.append(os.open(path, os.O_RDONLY))
        return Source(fds[-1], len(data))

    yield make
    for fd in fds:
        os.close(fd)


def direct(client: Any, bucket: str, **options: Any) -> DirectStore:
    complete = BotoStore(client, bucket, **options)
    settings = settings_of(complete)
    assert not isinstance(settings, str), settings
    return DirectStore(complete, settings)


@pytest.fixture
def engine(seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy) -> DirectStore:
    return direct(seaweed.client(endpoint_url=proxy.endpoint_url, read_timeout=0.5), seaweed_bucket)


def agent(proxy: FaultProxy) -> str:
    """Whose last request it was: botocore adds headers of its own."""
    return "boto3" if "amz-sdk-invocation-id" in proxy.requests[-1].headers else "direct"


# -- who does it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({}, None),
        ({**TYPED, "CacheControl": "max-age=1", "StorageClass": "STANDARD", "Metadata": {"ds-stamp": "1:2"}}, None),
        ({"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k", "BucketKeyEnabled": True}, None),
        ({"ACL": "public-read", "Tagging": "a=b", "WebsiteRedirectLocation": "/"}, None),
        ({"Expires": "Thu, 01 Dec 2044 16:00:00 GMT"}, None),
        ({"NotOfThisOperation": object()}, None),
        ({"Expires": "x"}, "the parameter Expires"),
        ({"BucketKeyEnabled": "yes"}, "the parameter BucketKeyEnabled"),
        ({"Expires": []}, "the parameter Expires"),
        ({"SSECustomerKey": "k"}, "the parameter SSECustomerKey"),
        ({"ContentDisposition": 'attachment; filename="ü"'}, "the parameter ContentDisposition"),
        ({"ContentType": " "}, "the parameter ContentType"),
        ({"CacheControl": "a\r\nx: y"}, "the parameter CacheControl"),
        ({"Metadata": {"a": "b\nc"}}, "the metadata a"),
        ({"Metadata": {"a": ""}}, "the metadata a"),
        ({"Metadata": {"a:b": "c"}}, "the metadata a:b"),
        ({"Metadata": {"A": "b", "a": "c"}}, "a header twice"),
    ],
)
def test_what_it_cannot_express_is_named(engine: DirectStore, parameters: dict[str, Any], why: str | None) -> None:
    assert engine.why_inexpressible(parameters) == why


PARAMETERS: list[dict[str, Any]] = [
    {},
    {
        "CacheControl": "max-age=86400",
        "ContentDisposition": 'attachment; filename="x  y"',
        "ContentEncoding": "identity",
        "ContentLanguage": "de",
        "ContentType": "text/plain; charset=utf-8",
        "StorageClass": "STANDARD_IA",
        "Metadata": {"site": "mine", "Upper-Case": "a:b/c", "two": "a  b"},
    },
    {"ACL": "public-read", "Tagging": "a=b&c=d", "WebsiteRedirectLocation": "/elsewhere"},
    {"GrantRead": 'uri="http://acs.amazonaws.com/groups/global/AllUsers"'},
    {"ServerSideEncryption": "AES256"},
    {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "arn:aws:kms:us-east-1:123456789012:key/abcd",
        "SSEKMSEncryptionContext": "e30=",
        "BucketKeyEnabled": True,
    },
    {"Expires": "2044-12-01T16:00:00Z", "BucketKeyEnabled": False},
    {"Expires": datetime(2044, 12, 1, 16, tzinfo=timezone.utc)},
    {
        "ObjectLockMode": "GOVERNANCE",
        "ObjectLockRetainUntilDate": datetime(2044, 12, 1, tzinfo=timezone.utc),
        "ObjectLockLegalHoldStatus": "ON",
    },
]
#: What says who sent it, and when.
OWN_HEADERS = {
    "accept-encoding",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "user-agent",
    "x-amz-date",
}


@pytest.mark.parametrize("checksum", ["sha256", "md5"])
@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda parameters: "+".join(parameters) or "none")
def test_it_sends_what_the_client_library_would(
    moto: MotoServer, source: Any, parameters: dict[str, Any], checksum: str
) -> None:
    """Every request of every operation, header by header."""
    if "ObjectLockMode" in parameters and checksum != "md5":
        pytest.skip("moto takes no other checksum with a lock")
    bucket = new_bucket_name()
    locked = "ObjectLockMode" in parameters
    moto.client().create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=locked)
    with FaultProxy(moto.endpoint_url) as wire:
        # As the storage has it.
        required = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
        client = moto.client(endpoint_url=wire.endpoint_url, config=required)
        client.meta.events.register_last("before-call.s3", _send_body_at_once)
        options: dict[str, Any] = {"checksum": checksum, "multipart_threshold": 1000, "part_size": 5 << 20}
        options["common"] = {"ExpectedBucketOwner": "123456789012", "RequestPayer": "requester"}
        seen: list[list[Any]] = []
        bodies = b"small", b"x" * ((5 << 20) + 1), b""
        for engine in (BotoStore(client, bucket, **options), direct(client, bucket, **options)):
            wire.clear()
            for body, condition in zip(bodies, (Condition(), Condition(absent=True), Condition()), strict=True):
                engine.put(f"a b+ü/{len(body)}~*'()", source(body), parameters, condition, sending=nothing)
            found = engine.head("a b+ü/5~*'()")
            assert found is not None
            engine.get("a b+ü/5~*'()", start=2, etag=found.etag).close()
            for body in bodies:
                engine.delete(f"a b+ü/{len(body)}~*'()", sending=nothing)
            assert {"amz-sdk-invocation-id" in request.headers for request in wire.requests} == {
                not isinstance(engine, DirectStore)
            }
            upload = next(iter(r.parameters["uploadId"][0] for r in wire.requests if "uploadId" in r.parameters))
            seen.append(
                sorted(
                    (
                        request.method,
                        request.path,
                        sorted(request.query.replace(upload, "ID").split("&")),
                        sorted((name, value) for name, value in request.headers.items() if name not in OWN_HEADERS),
                        request.body_bytes,
                    )
                    for request in wire.requests
                )
            )
    assert seen[0] == seen[1]


@pytest.mark.parametrize("key", ["a b+ü%2Bü~*'()#?&=^`{}|<>.txt", "a//b", "a/../b", "/a", "a/", "./a", "a\x01b"])
def test_every_key_is_sent_as_it_is(moto: MotoServer, source: Any, key: str) -> None:
    """On moto, which takes any key."""
    bucket = moto.create_bucket()
    with FaultProxy(moto.endpoint_url) as wire:
        engine = direct(moto.client(endpoint_url=wire.endpoint_url), bucket)
        engine.put(key, source(b"x"), TYPED, sending=nothing)
        info = engine.head(key)
        assert info is not None
        assert (info.key, info.size, agent(wire)) == (key, 1, "direct")
        assert [listed.key for listed in engine.list_all("")] == [key]
        assert moto.client().get_object(Bucket=bucket, Key=key)["Body"].read() == b"x"


def test_what_it_cannot_express_is_sent_by_the_client_library(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert agent(proxy) == "direct"
    engine.put(f"{prefix}/a", source(b"x"), {**TYPED, "ContentDisposition": " spaced"}, sending=nothing)
    assert agent(proxy) == "boto3"
    engine.delete(f"{prefix}/a", sending=nothing)
    assert agent(proxy) == "direct"


def test_a_client_that_it_cannot_follow_keeps_its_own_engine(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def why(client: Any, bucket: str = "bucket", **options: Any) -> str:
        found, store = choose(BotoStore(client, bucket, **options))
        assert isinstance(store, DirectStore) is not bool(found.reason)
        return found.reason

    secure = "https://127.0.0.1:1"
    assert why(seaweed.client()) == ""
    assert why(seaweed.client(), common={"RequestPayer": "requester"}) == ""
    assert "SSECustomerKey" in why(seaweed.client(), common={"SSECustomerKey": "k"})
    assert "proxy" in why(seaweed.client(config=Config(proxies={"http": "http://127.0.0.1:1"})))
    assert why(seaweed.client(config=Config(proxies={"https": "http://127.0.0.1:1"}))) == ""
    assert "signs in another way" in why(seaweed.client(config=Config(signature_version="s3")))
    assert "certificate of its own" in why(seaweed.client(config=Config(client_cert="/c")))
    assert "User-Agent" in why(seaweed.client(config=Config(user_agent="ü")))
    assert "endpoint is not known" in why(seaweed.client(), "not a bucket/")
    for bundle in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(bundle, raising=False)
    assert why(seaweed.client(endpoint_url=secure)) == ""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none"))
    assert "cannot be read (No such file" in why(seaweed.client(endpoint_url=secure))
    assert why(seaweed.client()) == ""


def test_a_proxy_of_the_environment_is_the_client_librarys_but_for_hosts_without(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reason() -> str:
        session: Any = boto3.session.Session()
        client = session.client(
            "s3", endpoint_url=seaweed.endpoint_url, aws_access_key_id="a", aws_secret_access_key="b"
        )
        return choose(BotoStore(client, "bucket"))[0].reason

    for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert reason() == "a proxy is configured"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert reason() == ""


def test_headers_that_a_site_adds_are_not_lost(seaweed: SeaweedServer) -> None:
    client = seaweed.client()
    client.meta.events.register("before-sign.s3", lambda request, **_: request.headers.add_header("x-amz-own", "1"))
    assert choose(BotoStore(client, "bucket"))[0].reason == "it signs headers of its own"


def test_nothing_is_sent_to_find_out(seaweed: SeaweedServer, proxy: FaultProxy, seaweed_bucket: str) -> None:
    client = seaweed.client(endpoint_url=proxy.endpoint_url)
    assert choose(BotoStore(client, seaweed_bucket))[0].is_fast
    assert proxy.count() == 0
    # The client itself goes on as before.
    client.put_object(Bucket=seaweed_bucket, Key="x", Body=b"x")
    assert client.head_object(Bucket=seaweed_bucket, Key="x")["ContentLength"] == 1


@pytest.mark.parametrize("signature", [None, "s3v4"])
@pytest.mark.parametrize(
    ("options", "host", "path"),
    [
        ({"addressing_style": "path"}, "s3{region}.amazonaws.com", "/my-bucket/"),
        ({"addressing_style": "virtual"}, "my-bucket.s3{region}.amazonaws.com", "/"),
        ({"addressing_style": "auto"}, "my-bucket.s3{region}.amazonaws.com", "/"),
        ({"use_dualstack_endpoint": True}, "my-bucket.s3.dualstack.{plain}.amazonaws.com", "/"),
        ({"use_accelerate_endpoint": True}, "my-bucket.s3-accelerate.amazonaws.com", "/"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_address_is_the_client_librarys(
    region: str, options: Any, host: str, path: str, signature: str | None
) -> None:
    config = Config(s3=options, region_name=region, signature_version=signature, proxies={})
    session: Any = boto3.session.Session()
    client = session.client("s3", aws_access_key_id="a", aws_secret_access_key="b", config=config)
    settings = settings_of(BotoStore(client, "my-bucket"))
    assert not isinstance(settings, str), settings
    short = "" if region == "us-east-1" and "addressing_style" in options else f".{region}"
    expected = host.format(region=short, plain=region)
    assert settings.endpoint.host in {expected, host.format(region=f".{region}", plain=region)}
    assert (settings.endpoint.scheme, settings.endpoint.base_path) == ("https", path)
    assert (settings.endpoint.region, settings.peer.port) == (region, 443)


@pytest.mark.parametrize(
    ("url", "peer", "host"),
    [
        ("http://[::1]:8333", ("::1", 8333), "[::1]:8333"),
        ("http://Storage.Example", ("storage.example", 80), "storage.example"),
        ("https://Storage.Example:443/below", ("storage.example", 443), "storage.example"),
    ],
)
def test_an_endpoint_may_have_any_form(seaweed: SeaweedServer, url: str, peer: Any, host: str) -> None:
    settings = settings_of(BotoStore(seaweed.client(endpoint_url=url), "b"))
    assert not isinstance(settings, str), settings
    assert (settings.peer.host, settings.peer.port, settings.endpoint.host_header) == (*peer, host)
    assert settings.endpoint.base_path == ("/below/b/" if "below" in url else "/b/")


def test_the_choice_is_told() -> None:
    assert str(Choice("boto3 1", "of the ACL")) == "boto3 1, because of the ACL"
    assert str(Choice("direct 1")) == "direct 1"
    assert Choice("direct 1").is_fast
    assert not Choice("boto3 1", "of the ACL").is_fast


def test_a_forked_child_has_connections_of_its_own(
    seaweed: SeaweedServer, seaweed_bucket: str, engine: DirectStore, source: Any, prefix: str, proxy: FaultProxy
) -> None:
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)

    def put_in_child() -> bool:
        return engine.put(f"{prefix}/b", source(b"child"), TYPED, sending=nothing).clean

    assert run_in_child(put_in_child).unwrap()
    assert engine.get(f"{prefix}/b").read() == b"child"
    assert engine.get(f"{prefix}/a").read() == b"x"


def test_temporary_credentials_are_asked_for_anew(
    seaweed: SeaweedServer, seaweed_bucket: str, source: Any, prefix: str, proxy: FaultProxy
) -> None:
    asked: list[None] = []

    class Renewed(RefreshableCredentials):
        def __init__(self) -> None:
            pass

        def get_frozen_credentials(self) -> Any:
            asked.append(None)
            return type(
                "Frozen", (), {"access_key": seaweed.access_key, "secret_key": seaweed.secret_key, "token": "T"}
            )

    client = seaweed.client(endpoint_url=proxy.endpoint_url)
    client._request_signer._credentials = Renewed()
    complete = BotoStore(client, seaweed_bucket)
    settings = settings_of(complete)
    assert not isinstance(settings, str)
    assert seaweed.secret_key not in repr(settings)
    assert seaweed.secret_key not in repr(vars(DirectStore(complete, settings)))
    asked.clear()
    # The server knows no such session; that the token reaches it is what counts.
    with pytest.raises(S3Error):
        DirectStore(complete, settings).put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert asked
    assert proxy.requests[-1].headers["x-amz-security-token"] == "T"
    assert "x-amz-security-token" in proxy.requests[-1].headers["authorization"]
    assert agent(proxy) == "direct"


def _refusal(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "AssumeRole")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (_refusal("AccessDenied", 403), S3Error),
        (
            _refusal("Throttling", 400),
            S3TransientError,
        ),
        (CredentialRetrievalError(provider="x", error_msg="y"), S3Error),
        (MetadataRetrievalError(error_msg="y"), S3TransientError),
        (EndpointConnectionError(endpoint_url="x"), S3TransientError),
    ],
    ids=repr,
)
def test_credentials_that_cannot_be_renewed_are_an_error_of_s3_and_nothing_is_sent(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str, error: Exception, kind: type[S3Error]
) -> None:
    class Expired:
        def get_frozen_credentials(self) -> Any:
            raise error

    engine.client._request_signer._credentials = Expired()  # type: ignore[attr-defined]
    engine._settings.keys._credentials = Expired()  # type: ignore[attr-defined]
    for each in (engine, BotoStore(engine.client, engine.bucket)):
        with pytest.raises(S3Error) as failure:
            each.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
        assert type(failure.value) is kind
        assert failure.value.__cause__ is error
        assert not failure.value.sent or each is not engine
    assert proxy.count() == 0


# -- what its errors say -----------------------------------------------------------------------------------------------


def _do(engine: DirectStore | BotoStore, operation: str, source: Any) -> None:
    if operation == "put":
        engine.put("secret/key", source(b"x"), TYPED, sending=nothing)
    else:
        engine.get("secret/key")


@pytest.mark.parametrize(
    ("fault", "kind", "status", "code"),
    [
        (Status(503), S3TransientError, 503, "SlowDown"),
        (Status(500), S3TransientError, 500, "InternalError"),
        (Status(501), S3Error, 501, "InternalError"),
        (Status(429), S3TransientError, 429, "TooManyRequests"),
        (Status(409), S3TransientError, 409, "ConditionalRequestConflict"),
        (Status(412), S3PreconditionError, 412, "PreconditionFailed"),
        (Status(403), S3Error, 403, "AccessDenied"),
        (Status(404, code="NoSuchBucket"), S3Error, 404, "NoSuchBucket"),
        (Status(404), S3NotFoundError, 404, "NoSuchKey"),
        (Status(400, code="RequestTimeout"), S3TransientError, 400, "RequestTimeout"),
        (Status(403, body=b"<html>no"), S3Error, 403, "403"),
        # The other engine calls this one 500.
        (Status(200, body=b"<html>welcome"), S3TransientError, None, None),
        (Refused(), S3TransientError, 0, None),
        (LostAnswer(), S3TransientError, 0, None),
        (BlackHole(), S3TransientError, 0, "ReadTimeoutError"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("operation", ["put", "get"])
def test_an_error_is_what_the_other_engine_would_raise(
    seaweed: SeaweedServer,
    seaweed_bucket: str,
    proxy: FaultProxy,
    source: Any,
    fault: Any,
    kind: type[S3Error],
    status: int | None,
    code: str | None,
    operation: str,
) -> None:
    engine = direct(seaweed.client(endpoint_url=proxy.endpoint_url, read_timeout=0.5), seaweed_bucket)
    proxy.fail(fault, times=None)
    found = []
    for each in (engine, BotoStore(engine.client, engine.bucket)):
        with pytest.raises(S3Error) as failure:
            _do(each, operation, source)
        found.append(failure.value)
    ours, theirs = found
    assert type(ours) is type(theirs) is kind
    assert (ours.sent, ours.retried) == (theirs.sent, False)
    assert status is None or ours.status == theirs.status == status
    assert code is None or ours.code == code
    if status and "html" not in repr(fault):
        assert (ours.code, str(ours)) == (theirs.code, str(theirs))
    assert not [secret for secret in (*SECRETS, seaweed.access_key) if secret in str(ours)]


@pytest.mark.parametrize("operation", ["create", "complete"])
def test_a_success_that_holds_an_error_is_one(
    seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy, source: Any, prefix: str, operation: str
) -> None:
    client = seaweed.client(endpoint_url=proxy.endpoint_url)
    body = b"<Error><Code>SlowDown</Code><Message>Please &lt;wait&gt;</Message></Error>"
    wanted = "uploads" if operation == "create" else "uploadId"
    for options in ({}, {"complete": True}):
        proxy.fail(
            Status(200, body=body, headers=(("ETag", '"x"'),)),
            method="POST",
            when=lambda request: wanted in request.query.partition("=")[0],
        )
        engine: BotoStore = BotoStore(client, seaweed_bucket, multipart_threshold=1)
        engine = engine if options else direct(client, seaweed_bucket, multipart_threshold=1)
        with pytest.raises(S3TransientError, match=r"SlowDown.*: Please <wait>") as failure:
            engine.put(f"{prefix}/a", source(b"xyz"), TYPED, sending=nothing)
        assert failure.value.status == 500
        assert engine.head(f"{prefix}/a") is None
    assert not seaweed.client().list_multipart_uploads(Bucket=seaweed_bucket, Prefix=prefix).get("Uploads")


def test_a_clock_that_is_off_is_put_right_once(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    ahead = (datetime.now(timezone.utc) + timedelta(minutes=20)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    refusal = Status(403, code="RequestTimeTooSkewed", headers=(("Date", ahead),))
    proxy.fail(refusal, times=None)
    with pytest.raises(S3TransientError, match="RequestTimeTooSkewed") as failure:
        engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert not failure.value.sent
    with pytest.raises(S3Error, match="RequestTimeTooSkewed") as final:
        engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert not isinstance(final.value, S3TransientError)
    first, second = (
        datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ") for request in proxy.requests[-2:]
    )
    assert timedelta(minutes=19) < second - first < timedelta(minutes=21)


def test_credentials_with_a_line_break_are_left_to_the_client_library_to_refuse(
    seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy
) -> None:
    client = seaweed.client(endpoint_url=proxy.endpoint_url)
    client._request_signer._credentials = Credentials("key\n", "secret")
    settings = settings_of(BotoStore(client, seaweed_bucket))
    assert isinstance(settings, str)
    assert proxy.count() == 0


def test_nobody_there_means_not_sent(moto: MotoServer, source: Any) -> None:
    engine = direct(moto.client(endpoint_url="http://127.0.0.1:1"), "bucket")
    with pytest.raises(S3TransientError) as failure:
        engine.put("a", source(b"x"), TYPED, sending=nothing)
    assert not failure.value.sent


def test_a_bucket_elsewhere_is_left_to_the_client_that_finds_it(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    proxy.fail(Status(301, code="PermanentRedirect"))
    assert engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing).clean
    assert agent(proxy) == "boto3"
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert agent(proxy) == "boto3"


def test_a_head_that_does_not_say_why_it_was_refused_is_asked_again_by_the_client_library(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    """In a bucket elsewhere a HEAD is a 400 without a body."""
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    proxy.fail(Status(400), method="HEAD")
    info = engine.head(f"{prefix}/a")
    assert info is not None
    assert agent(proxy) == "boto3"
    engine.head(f"{prefix}/a")
    assert agent(proxy) == "direct"


def test_each_request_is_sent_once(engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str) -> None:
    for fault in (Status(503), Status(500), Refused(), LostAnswer()):
        proxy.clear()
        proxy.fail(fault)
        with pytest.raises(S3TransientError):
            engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
        assert proxy.count() == 1


def _read_on(body: Body, size: int) -> None:
    while body.read(size):
        pass


def test_a_body_is_read_in_pieces_and_breaks_off_as_an_error(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    data = os.urandom(1 << 20)
    engine.put(f"{prefix}/a", source(data), TYPED, sending=nothing)
    body = engine.get(f"{prefix}/a", start=10)
    assert body.info.size == len(data)
    pieces = [body.read(100), body.read(0), body.read(300_000), body.read(), body.read(1)]
    assert b"".join(pieces) == data[10:]
    assert [len(piece) for piece in pieces[:3]] == [100, 0, 300_000]
    body.close()
    assert body.read() == b""
    for how in (-1, 1000):
        proxy.fail(Truncated(500_000), method="GET")
        body = engine.get(f"{prefix}/a")
        with pytest.raises(S3TransientError, match="broke off") as failure:
            _read_on(body, how)
        assert not [secret for secret in SECRETS if secret in str(failure.value)]
