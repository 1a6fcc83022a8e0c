"""The obstore engine: what it must leave to the other, and what its errors say."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials

from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.choice import Choice, choose, engine_for_commands
from django_dualstorage.engine.objectstore import Body, Condition, Source
from django_dualstorage.engine.direct import DirectStore
from django_dualstorage.engine.direct_settings import settings_of
from django_dualstorage.exceptions import S3Error, S3NotFoundError, S3PreconditionError, S3TransientError
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


def rust(client: Any, bucket: str, **options: Any) -> DirectStore:
    complete = BotoStore(client, bucket, **options)
    settings = settings_of(complete)
    assert not isinstance(settings, str), settings
    return DirectStore(complete, settings)


@pytest.fixture
def engine(seaweed: SeaweedServer, seaweed_bucket: str, proxy: FaultProxy) -> DirectStore:
    return rust(seaweed.client(endpoint_url=proxy.endpoint_url, read_timeout=0.5), seaweed_bucket)


def agent(proxy: FaultProxy) -> str:
    """Whose last request it was: obstore signs without the headers that botocore adds."""
    return "boto3" if "amz-sdk-invocation-id" in proxy.requests[-1].headers else "direct"


# -- who does it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({**TYPED, "CacheControl": "max-age=1", "StorageClass": "STANDARD", "Metadata": {"ds-stamp": "1:2"}}, None),
        ({**TYPED, "ServerSideEncryption": "AES256"}, None),
        ({**TYPED, "ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k"}, None),
        ({**TYPED, "ServerSideEncryption": "aws:kms"}, "the parameter ServerSideEncryption"),
        ({**TYPED, "ACL": "public-read"}, "the parameter ACL"),
        ({**TYPED, "Tagging": "a=b"}, "the parameter Tagging"),
        ({**TYPED, "Expires": "x"}, "the parameter Expires"),
        ({**TYPED, "WebsiteRedirectLocation": "/"}, "the parameter WebsiteRedirectLocation"),
        ({**TYPED, "SSECustomerKey": "k"}, "the parameter SSECustomerKey"),
        ({**TYPED, "ContentDisposition": 'attachment; filename="ü"'}, "the parameter ContentDisposition"),
        ({**TYPED, "Metadata": {"a": "b\nc"}}, "the metadata a"),
        ({**TYPED, "Metadata": {"a": ""}}, "the metadata a"),
        ({**TYPED, "Metadata": {"Content-type": "b"}}, "the metadata Content-type"),
        ({"ContentType": " "}, "the parameter ContentType"),
        ({}, "a missing ContentType"),
    ],
)
def test_what_it_cannot_express_is_named(parameters: dict[str, Any], why: str | None) -> None:
    assert why_inexpressible(parameters) == why


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a b+ü%2Bü~*'()#?&=^`{}|<>.txt", "direct"),
        ("a//b", "boto3"),
        ("a/../b", "boto3"),
        ("/a", "boto3"),
        ("a/", "boto3"),
        ("./a", "boto3"),
        ("a\x01b", "boto3"),
    ],
)
def test_a_key_that_it_would_change_or_refuse_is_left_to_the_other(
    moto: MotoServer, source: Any, key: str, expected: str
) -> None:
    """On moto, which takes any key."""
    bucket = moto.create_bucket()
    with FaultProxy(moto.endpoint_url) as wire:
        engine = rust(moto.client(endpoint_url=wire.endpoint_url), bucket)
        engine.put(key, source(b"x"), TYPED, sending=nothing)
        assert agent(wire) == expected
        info = engine.head(key)
        assert info is not None
        assert (info.key, info.size, agent(wire)) == (key, 1, expected)
        assert [listed.key for listed in engine.list_all("")] == [key]


def test_parameters_that_it_cannot_express_are_sent_by_the_other(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert agent(proxy) == "direct"
    engine.put(f"{prefix}/a", source(b"x"), {**TYPED, "Tagging": "a=b"}, sending=nothing)
    assert agent(proxy) == "boto3"
    engine.delete(f"{prefix}/a", sending=nothing)
    assert agent(proxy) == "boto3"


def test_a_client_that_it_cannot_follow_keeps_its_own_engine(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def why(client: Any, bucket: str = "bucket", **options: Any) -> str:
        found, store = choose(BotoStore(client, bucket, **options))
        assert isinstance(store, BotoStore) is bool(found.reason)
        return found.reason

    assert why(seaweed.client()) == ""
    assert "RequestPayer" in why(seaweed.client(), common={"RequestPayer": "requester"})
    assert "proxy" in why(seaweed.client(config=Config(proxies={"http": "http://127.0.0.1:1"})))
    assert "signs in another way" in why(seaweed.client(config=Config(signature_version="s3")))
    monkeypatch.setenv("AWS_SERVER_SIDE_ENCRYPTION", "AES256")
    assert why(seaweed.client()) == "AWS_SERVER_SIDE_ENCRYPTION is set in the environment"
    monkeypatch.delenv("AWS_SERVER_SIDE_ENCRYPTION")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert why(seaweed.client()) == "HTTPS_PROXY is set in the environment"
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    assert "certificates" in why(seaweed.client(endpoint_url="https://127.0.0.1:1"))


@pytest.mark.parametrize("style", ["path", "virtual"])
@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_the_address_is_the_client_librarys(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch, style: Any, region: str
) -> None:
    for bundle in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(bundle, raising=False)
    config = Config(s3={"addressing_style": style}, region_name=region)
    settings = settings_of(BotoStore(seaweed.client(endpoint_url=None, config=config), "my-bucket"))
    assert not isinstance(settings, str), settings
    assert (settings.region, settings.verify) == (region, True)
    assert settings.virtual_hosted is (style == "virtual")
    assert settings.endpoint.startswith("https://my-bucket.s3." if style == "virtual" else "https://s3.")


def test_the_choice_is_told() -> None:
    assert str(Choice("boto3 1", "of the ACL")) == "boto3 1, because of the ACL"
    assert str(Choice("obstore 1")) == "obstore 1"
    assert Choice("obstore 1").is_fast
    assert not Choice("boto3 1", "of the ACL").is_fast


def test_without_obstore_the_other_engine_does_it(
    seaweed: SeaweedServer, seaweed_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "direct", None)
    told: list[Choice] = []
    engine = engine_for_commands(BotoStore(seaweed.client(), seaweed_bucket), on_choice=told.append)
    assert engine.head("never") is None
    assert [choice.is_fast for choice in told] == [False]
    assert "obstore cannot be used here: " in str(told[0])


def test_it_is_imported_only_when_it_is_used() -> None:
    code = "import sys, django_dualstorage.engine.choice; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_forked_child_uses_the_other_engine(
    engine: DirectStore, source: Any, proxy: FaultProxy, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert engine.head(f"{prefix}/a") is not None
    assert agent(proxy) == "boto3"


def test_a_forked_child_does_not_begin_with_it_anew(
    seaweed: SeaweedServer, seaweed_bucket: str, engine: DirectStore, source: Any, prefix: str
) -> None:
    """Its threads belong to the parent, and a request of the child would wait for them for ever."""
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)

    def choose_and_put() -> str:
        choice, store = choose(BotoStore(seaweed.client(), seaweed_bucket))
        store.put(f"{prefix}/b", source(b"x"), TYPED, sending=nothing)
        return str(choice)

    assert "forked" in run_in_child(choose_and_put).unwrap()


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
    asked.clear()
    # The server knows no such session; that the token reaches it is what counts.
    with pytest.raises(S3Error):
        DirectStore(complete, settings).put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert asked
    assert proxy.requests[-1].headers["x-amz-security-token"] == "T"


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
        (BlackHole(), S3TransientError, 0, "Timeout"),
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
    if isinstance(fault, BlackHole) and operation == "put":
        pytest.skip("an upload has half a minute's patience for slow lines")
    engine = rust(seaweed.client(endpoint_url=proxy.endpoint_url, read_timeout=0.5), seaweed_bucket)
    proxy.fail(fault, times=None)
    found = []
    for each in (engine, engine._complete):
        with pytest.raises(S3Error) as failure:
            _do(each, operation, source)
        found.append(failure.value)
    ours, theirs = found
    assert type(ours) is type(theirs) is kind
    assert (ours.sent, ours.retried) == (theirs.sent, False)
    assert status is None or ours.status == theirs.status == status
    assert code is None or ours.code == code
    assert not [secret for secret in (*SECRETS, seaweed.access_key) if secret in str(ours)]


def test_nobody_there_means_not_sent(moto: MotoServer, source: Any) -> None:
    engine = rust(moto.client(endpoint_url="http://127.0.0.1:1"), "bucket")
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


def test_a_server_whose_etag_proves_nothing_gets_a_checksum_that_it_looks_at(
    seaweed: SeaweedServer, seaweed_bucket: str, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    """Where only MD5 is known, the ETag is the check; where it is another thing, as with KMS, Content-MD5 is."""
    engine = rust(seaweed.client(endpoint_url=proxy.endpoint_url), seaweed_bucket, checksum="md5")
    engine.put(f"{prefix}/a", source(b"x"), TYPED, sending=nothing)
    assert (proxy.count(), agent(proxy)) == (1, "direct")
    odd = Status(200, body=b"", headers=(("ETag", f'"{hashlib.md5(b"y").hexdigest()}"'),))
    proxy.fail(odd)
    assert engine.put(f"{prefix}/b", source(b"x"), TYPED, sending=nothing).clean
    assert (proxy.count(), agent(proxy)) == (3, "boto3")
    assert proxy.requests[-1].headers["content-md5"]


def test_an_upload_in_parts_under_a_condition_is_the_others(
    seaweed: SeaweedServer, seaweed_bucket: str, source: Any, proxy: FaultProxy, prefix: str
) -> None:
    engine = rust(
        seaweed.client(endpoint_url=proxy.endpoint_url), seaweed_bucket, multipart_threshold=1000, part_size=1 << 20
    )
    engine.put(f"{prefix}/a", source(b"x" * 1000), TYPED, Condition(absent=True), sending=nothing)
    assert agent(proxy) == "boto3"
    engine.put(f"{prefix}/a", source(b"x" * 1000), TYPED, sending=nothing)
    assert agent(proxy) == "direct"
