"""The direct engine over TLS, with a certificate that nobody has signed."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from django_dualstorage.engine.boto import BotoStore
from django_dualstorage.engine.direct import DirectStore
from django_dualstorage.engine.direct_settings import settings_of
from django_dualstorage.engine.objectstore import Source
from django_dualstorage.exceptions import S3TransientError
from tests.support.seaweed import SeaweedServer

#: More than one record, more than one piece.
CONTENT = os.urandom(1_000_001)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either end has gone, which ends both
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def front(seaweed: SeaweedServer, certificate: Path) -> Iterator[str]:
    """The URL of a TLS front of SeaweedFS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    behind = urlsplit(seaweed.endpoint_url)
    threads: list[threading.Thread] = []
    open_ends: list[socket.socket] = []

    def serve(plain: socket.socket) -> None:
        with (
            suppress(OSError),
            closing(plain),
            closing(context.wrap_socket(plain, server_side=True)) as client,
            closing(socket.create_connection((str(behind.hostname), int(behind.port or 0)))) as server,
        ):
            open_ends.extend((client, server))
            back = threading.Thread(target=_pump, args=(server, client))
            back.start()
            _pump(client, server)
            back.join()

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=serve, args=(listener.accept()[0],)))
                threads[-1].start()

    with closing(socket.create_server(("localhost", 0))) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(5)
    for end in open_ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(5)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "source").write_bytes(CONTENT)
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    yield Source(fd, len(CONTENT))
    os.close(fd)


def engines(server: SeaweedServer, bucket: str, url: str, verify: Any = None) -> tuple[DirectStore, BotoStore]:
    session: Any = boto3.session.Session()
    client = session.client(
        "s3",
        endpoint_url=url,
        verify=verify,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(
            region_name="us-east-1",
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            proxies={},
            retries={"total_max_attempts": 1, "mode": "standard"},
        ),
    )
    complete = BotoStore(client, bucket)
    settings = settings_of(complete)
    assert not isinstance(settings, str), settings
    return DirectStore(complete, settings), complete


@pytest.fixture(autouse=True)
def _no_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    for bundle in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(bundle, raising=False)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")  # of the client library
@pytest.mark.parametrize("trust", ["nothing is checked", "an option", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_what_the_client_trusts_is_trusted(
    seaweed: SeaweedServer,
    seaweed_bucket: str,
    prefix: str,
    front: str,
    source: Source,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    trust: str,
) -> None:
    verify = {"nothing is checked": False, "an option": str(certificate)}.get(trust)
    if verify is None:
        monkeypatch.setenv(trust, str(certificate))
    for engine in engines(seaweed, seaweed_bucket, front, verify):
        for _ in range(2):
            assert engine.put(f"{prefix}/a", source, {"ContentType": "text/plain"}, sending=lambda: None).clean
            assert engine.get(f"{prefix}/a").read() == CONTENT
        assert engine.head(f"{prefix}/never") is None
    # Session tickets that come late must not make a connection look as if it were over.
    fast, _ = engines(seaweed, seaweed_bucket, front, verify)
    kept = []
    for _ in range(3):
        fast.put(f"{prefix}/a", source, {"ContentType": "text/plain"}, sending=lambda: None)
        kept.append(fast._here().pool._idle[0])
    assert kept == [kept[0]] * 3


@pytest.mark.parametrize("wrong", ["the authority", "the host"])
def test_what_the_client_does_not_trust_is_not_spoken_to(
    seaweed: SeaweedServer,
    seaweed_bucket: str,
    prefix: str,
    front: str,
    source: Source,
    certificate: Path,
    wrong: str,
) -> None:
    url = front if wrong == "the authority" else front.replace("localhost", "127.0.0.1")
    for engine in engines(seaweed, seaweed_bucket, url, True if wrong == "the authority" else str(certificate)):
        with pytest.raises(S3TransientError, match=r"(?i)certificate|hostname") as failure:
            engine.put(f"{prefix}/a", source, {"ContentType": "text/plain"}, sending=lambda: None)
        assert (failure.value.sent, failure.value.code) == (False, "SSLError")


def test_the_bundle_of_the_client_library_is_loaded(seaweed: SeaweedServer) -> None:
    engine, _ = engines(seaweed, "bucket", "https://localhost:1")
    tls = engine._settings.peer.tls
    assert tls is not None
    assert tls.check_hostname
    assert len(tls.get_ca_certs()) > 50


def test_a_server_that_speaks_no_tls_is_none(seaweed: SeaweedServer, seaweed_bucket: str, source: Source) -> None:
    url = seaweed.endpoint_url.replace("http:", "https:")
    for engine in engines(seaweed, seaweed_bucket, url, False):
        with pytest.raises(S3TransientError) as failure:
            engine.put("a", source, {"ContentType": "text/plain"}, sending=lambda: None)
        assert (failure.value.sent, failure.value.code) == (False, "SSLError")
