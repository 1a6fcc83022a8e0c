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


@pytest.mark.parametrize("checking", [False, True])
def test_certificates_are_checked_as_the_client_does(
    seaweed: SeaweedServer,
    seaweed_bucket: str,
    prefix: str,
    front: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checking: bool,
) -> None:
    for bundle in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(bundle, raising=False)
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=front,
        verify=checking,
        aws_access_key_id=seaweed.access_key,
        aws_secret_access_key=seaweed.secret_key,
        config=Config(region_name="us-east-1", signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
    )
    complete = BotoStore(client, seaweed_bucket)
    settings = settings_of(complete)
    assert not isinstance(settings, str), settings
    engine = DirectStore(complete, settings)
    (tmp_path / "source").write_bytes(b"content")
    fd = os.open(tmp_path / "source", os.O_RDONLY)
    try:
        if checking:
            with pytest.raises(S3TransientError) as failure:
                engine.put(f"{prefix}/a", Source(fd, 7), {"ContentType": "text/plain"}, sending=lambda: None)
            assert not failure.value.sent
        else:
            engine.put(f"{prefix}/a", Source(fd, 7), {"ContentType": "text/plain"}, sending=lambda: None)
            assert engine.get(f"{prefix}/a").read() == b"content"
    finally:
        os.close(fd)
