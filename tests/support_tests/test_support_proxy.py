"""Each fault is what a real client sees on a real wire, and the counts are those of the wire."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from tests.support.proxy import (
    BlackHole,
    Corrupt,
    FaultProxy,
    HeldAndLate,
    LostAnswer,
    Refused,
    Sequence,
    Slow,
    Status,
    Truncated,
)
from tests.support.seaweed import SeaweedServer


@pytest.fixture(scope="module")
def server() -> Iterator[SeaweedServer]:
    with SeaweedServer() as running:
        yield running


@pytest.fixture(scope="module")
def bucket(server: SeaweedServer) -> str:
    return server.create_bucket()


@pytest.fixture
def proxy(server: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.endpoint_url) as running:
        yield running


@pytest.fixture
def direct(server: SeaweedServer) -> Any:
    """A client that goes past the proxy: what is really there."""
    return server.client()


@pytest.fixture
def client(server: SeaweedServer, proxy: FaultProxy) -> Any:
    """A client through the proxy that tries once."""
    return server.client(endpoint_url=proxy.endpoint_url)


def body_of(client: Any, bucket: str, key: str) -> bytes:
    data: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def exists(client: Any, bucket: str, key: str) -> bool:
    try:
        client.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False
    return True


@final
class Script:
    """A server that reads one request up to a mark and answers with given bytes: what SeaweedFS can't say."""

    def __init__(self, *turns: tuple[bytes, bytes], close: bool = False) -> None:
        self.received: list[bytes] = []
        self._turns = turns
        self._close = close
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            for mark, answer in self._turns:
                data = b""
                while not data.endswith(mark):
                    data += connection.recv(1)
                self.received.append(data)
                connection.sendall(answer)
            if not self._close:
                connection.recv(1)
            connection.close()

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()


def connect(proxy: FaultProxy) -> socket.socket:
    port = int(proxy.endpoint_url.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def read_all(connection: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def read_exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        piece = connection.recv(length - len(data))
        assert piece, f"ended after {data!r}"
        data += piece
    return data


# --- Without a fault nothing changes


def test_signed_requests_pass_and_are_recorded(client: Any, proxy: FaultProxy, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="p/ä b.txt", Body=b"12345", Metadata={"ds-stamp": "5:1"})
    assert client.head_object(Bucket=bucket, Key="p/ä b.txt")["Metadata"] == {"ds-stamp": "5:1"}
    assert body_of(client, bucket, "p/ä b.txt") == b"12345"
    client.list_objects_v2(Bucket=bucket, Prefix="p/ä")
    client.delete_object(Bucket=bucket, Key="p/ä b.txt")

    put, head, get, listing, delete = proxy.requests
    assert [r.method for r in (put, head, get, listing, delete)] == ["PUT", "HEAD", "GET", "GET", "DELETE"]
    assert [r.status for r in (put, head, get, listing, delete)] == [200, 200, 200, 200, 204]
    assert (put.bucket, put.key, put.body_bytes) == (bucket, "p/ä b.txt", 5)
    assert put.headers["x-amz-meta-ds-stamp"] == "5:1"
    assert put.headers["host"] == proxy.endpoint_url.removeprefix("http://")
    assert put.path == f"/{bucket}/p/%C3%A4%20b.txt"
    assert (head.answer_bytes, get.answer_bytes) == (0, 5)
    assert (listing.key, listing.parameters["prefix"]) == ("", ["p/ä"])
    assert put.duration > 0
    assert put.fault is None


def test_large_bodies_pass_both_ways(client: Any, proxy: FaultProxy, bucket: str) -> None:
    data = os.urandom(9_000_000)
    client.put_object(Bucket=bucket, Key="large", Body=data)
    assert body_of(client, bucket, "large") == data
    assert [r.body_bytes for r in proxy.seen("PUT")] == [len(data)]


def test_a_range_passes(client: Any, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="range", Body=b"0123456789")
    answer = client.get_object(Bucket=bucket, Key="range", Range="bytes=3-5")
    assert answer["Body"].read() == b"345"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206


def test_a_wrong_signature_is_refused_by_the_server_behind(
    server: SeaweedServer, proxy: FaultProxy, bucket: str
) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        server.anonymous_client(endpoint_url=proxy.endpoint_url).put_object(Bucket=bucket, Key="x", Body=b"x" * 100_000)
    assert [r.status for r in proxy.requests] == [403]


def test_many_clients_at_once_are_all_counted(client: Any, proxy: FaultProxy, bucket: str) -> None:
    def one(number: int) -> bytes:
        client.put_object(Bucket=bucket, Key=f"many/{number}", Body=b"%d" % number)
        return body_of(client, bucket, f"many/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == [b"%d" % number for number in range(40)]
    assert (proxy.count("PUT"), proxy.count("GET"), proxy.count(status=200)) == (40, 40, 80)


def test_counts_filter_by_method_key_status_and_function(client: Any, proxy: FaultProxy, bucket: str) -> None:
    client.put_object(Bucket=bucket, Key="filter/a", Body=b"1")
    assert not exists(client, bucket, "filter/b")
    assert proxy.count() == 2
    assert proxy.count("HEAD") == 1
    assert proxy.count(key="^filter/a$") == 1
    assert proxy.count(key=re.compile("filter/[ab]")) == 2
    assert proxy.count(key=lambda key: key.endswith("b")) == 1
    assert proxy.count(status=404) == 1
    assert proxy.count(when=lambda request: request.body_bytes == 1) == 1
    proxy.clear()
    assert proxy.count() == 0


def test_one_connection_carries_several_requests(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        for _ in range(3):
            connection.sendall(b"HEAD /nobody HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += read_exactly(connection, 1)
            assert answer.startswith(b"HTTP/1.1 403")
    assert proxy.count("HEAD", status=403) == 3


def test_a_chunked_body_with_trailers_passes_byte_by_byte() -> None:
    head = (
        b"PUT /b/k HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nContent-Encoding: aws-chunked\r\n\r\n"
    )
    body = b"5;chunk-signature=00\r\nhel\r\n\r\n3\r\nabc\r\n0\r\nx-amz-checksum-crc32: AAAA\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with Script((b"AAAA\r\n\r\n", answer)) as script, FaultProxy(script.endpoint_url) as proxy:
        with connect(proxy) as connection:
            connection.sendall(head + body)
            assert read_exactly(connection, len(answer)) == answer
        assert script.received == [head + body]
        assert [(r.body_bytes, r.answer_bytes) for r in proxy.requests] == [(8, 2)]


def test_the_server_decides_whether_a_body_may_follow() -> None:
    head = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    go_on, done = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with Script((b"\r\n\r\n", go_on), (b"abc", done)) as script, FaultProxy(script.endpoint_url) as proxy:
        with connect(proxy) as connection:
            connection.sendall(head)
            assert read_exactly(connection, len(go_on)) == go_on
            connection.sendall(b"abc")
            assert read_exactly(connection, len(done)) == done
        assert script.received == [head, b"abc"]


def test_a_connection_stays_open_after_an_invitation_was_asked_for_a_body_of_no_bytes() -> None:
    head = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n"
    done = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    turn = (b"\r\n\r\n", done)
    with (
        Script(turn, turn) as script,
        FaultProxy(script.endpoint_url) as proxy,
        connect(proxy) as connection,
    ):
        for _ in range(2):
            connection.sendall(head)
            assert read_exactly(connection, len(done)) == done


def test_an_answer_instead_of_the_invitation_reaches_the_client() -> None:
    head = b"PUT /b/k HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    refusal = b"HTTP/1.1 412 Precondition Failed\r\nContent-Length: 2\r\n\r\nno"
    with Script((b"\r\n\r\n", refusal)) as script, FaultProxy(script.endpoint_url) as proxy:
        with connect(proxy) as connection:
            connection.sendall(head)
            assert read_all(connection) == refusal
        assert [(r.status, r.body_bytes) for r in proxy.requests] == [(412, 0)]


def test_a_body_that_ends_with_the_connection_passes() -> None:
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"
    with (
        Script((b"\r\n\r\n", answer), close=True) as script,
        FaultProxy(script.endpoint_url) as proxy,
        connect(proxy) as connection,
    ):
        connection.sendall(b"GET /b/k HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_all(connection) == answer


def test_a_server_that_is_down_looks_like_a_closed_connection(server: SeaweedServer, bucket: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with FaultProxy(f"http://127.0.0.1:{port}") as proxy:
        with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
            server.client(endpoint_url=proxy.endpoint_url).list_objects_v2(Bucket=bucket)
        assert [r.status for r in proxy.requests] == [None]


# --- The faults


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_a_status_is_answered_without_the_server(
    client: Any, direct: Any, proxy: FaultProxy, bucket: str, method: str
) -> None:
    direct.put_object(Bucket=bucket, Key="status", Body=b"old")
    proxy.fail(Status(503), method=method)
    operations: dict[str, Any] = {
        "PUT": lambda: client.put_object(Bucket=bucket, Key="status", Body=b"new"),
        "GET": lambda: client.get_object(Bucket=bucket, Key="status"),
        "HEAD": lambda: client.head_object(Bucket=bucket, Key="status"),
        "DELETE": lambda: client.delete_object(Bucket=bucket, Key="status"),
    }
    with pytest.raises(ClientError) as caught:
        operations[method]()
    assert caught.value.response["Error"]["Code"] == ("503" if method == "HEAD" else "SlowDown")
    assert body_of(direct, bucket, "status") == b"old"
    assert [(r.status, r.server_status, r.fault) for r in proxy.requests] == [(503, None, Status(503))]
    operations[method]()  # the connection is still good


def test_a_status_may_have_a_code_headers_and_a_body_of_its_own(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(400, code="Odd", headers=(("Retry-After", "7"),)))
    with pytest.raises(ClientError) as caught:
        client.list_objects_v2(Bucket=bucket)
    assert caught.value.response["Error"]["Code"] == "Odd"
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "7"
    proxy.fail(Status(200, body=b"<html>Please log in</html>"), method="GET")
    assert body_of(client, bucket, "anything") == b"<html>Please log in</html>"


def test_a_hidden_retry_is_seen_on_the_wire(server: SeaweedServer, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(503))
    retrying = server.client(endpoint_url=proxy.endpoint_url, attempts=2)
    answer = retrying.put_object(Bucket=bucket, Key="retry", Body=b"x")
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    assert [r.status for r in proxy.seen("PUT")] == [503, 200]


def test_a_refused_request_never_reaches_the_server(client: Any, direct: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Refused(), method="PUT")
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="refused", Body=b"x")
    assert not exists(direct, bucket, "refused")
    assert [(r.status, r.server_status) for r in proxy.requests] == [(None, None)]


def test_a_lost_answer_is_one_of_a_request_that_was_applied(
    client: Any, direct: Any, proxy: FaultProxy, bucket: str
) -> None:
    proxy.fail(LostAnswer(), method="PUT")
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="lost", Body=b"x")
    assert body_of(direct, bucket, "lost") == b"x"
    assert [(r.status, r.server_status) for r in proxy.requests] == [(None, 200)]
    assert body_of(client, bucket, "lost") == b"x"


def test_a_held_request_lands_after_a_later_one_when_it_is_released(
    client: Any, direct: Any, proxy: FaultProxy, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="late", Body=b"first")
    proxy.fail(HeldAndLate(), method="PUT")
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="late", Body=b"stuck")
    assert body_of(direct, bucket, "late") == b"first"
    client.put_object(Bucket=bucket, Key="late", Body=b"newer")
    assert body_of(direct, bucket, "late") == b"newer"
    assert [request.key for request in proxy.held] == ["late"]

    assert proxy.release() == [200]
    assert body_of(direct, bucket, "late") == b"stuck"
    assert proxy.held == []
    assert proxy.release() == []
    assert [r.status for r in proxy.seen("PUT")] == [200, None, 200]


def test_a_held_request_may_let_its_client_wait(
    server: SeaweedServer, direct: Any, proxy: FaultProxy, bucket: str
) -> None:
    proxy.fail(HeldAndLate(hang=True), method="DELETE")
    direct.put_object(Bucket=bucket, Key="late-delete", Body=b"x")
    with pytest.raises(ReadTimeoutError):
        server.client(endpoint_url=proxy.endpoint_url, read_timeout=0.3).delete_object(Bucket=bucket, Key="late-delete")
    assert exists(direct, bucket, "late-delete")
    assert proxy.release() == [204]
    assert not exists(direct, bucket, "late-delete")


def test_held_requests_may_be_lost_for_good(client: Any, direct: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(HeldAndLate())
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="dropped", Body=b"x")
    proxy.drop_held()
    assert proxy.release() == []
    assert not exists(direct, bucket, "dropped")


def test_held_requests_stay_held_while_the_server_is_down() -> None:
    request = b"DELETE /b/k HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = b"HTTP/1.1 204 No Content\r\n\r\n"
    with Script((b"\r\n\r\n", answer)) as script, FaultProxy(script.endpoint_url) as proxy:
        proxy.fail(HeldAndLate())
        with connect(proxy) as connection:
            connection.sendall(request)
            assert read_all(connection) == b""
        target, proxy._target = proxy._target, ("127.0.0.1", 1)
        with pytest.raises(ConnectionRefusedError):
            proxy.release()
        proxy._target = target
        assert proxy.release() == [204]
    assert script.received == [request]


@pytest.mark.parametrize("at_bytes", [0, 1, 70_000, 299_999])
def test_a_truncated_answer_promises_more_than_it_brings(
    client: Any, direct: Any, proxy: FaultProxy, bucket: str, at_bytes: int
) -> None:
    direct.put_object(Bucket=bucket, Key="cut", Body=b"x" * 300_000)
    proxy.fail(Truncated(at_bytes), method="GET")
    answer = client.get_object(Bucket=bucket, Key="cut")
    assert answer["ContentLength"] == 300_000
    with pytest.raises((IncompleteReadError, ResponseStreamingError)):
        answer["Body"].read()
    assert [(r.status, r.answer_bytes) for r in proxy.requests] == [(200, at_bytes)]


def test_truncated_bytes_are_exactly_those_that_were_asked_for() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    with Script((b"\r\n\r\n", head + b"0123456789")) as script, FaultProxy(script.endpoint_url) as proxy:
        proxy.fail(Truncated(4))
        with connect(proxy) as connection:
            connection.sendall(b"GET /b/k HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_all(connection) == head + b"0123"


def test_a_delayed_answer_comes_late_and_whole(client: Any, direct: Any, proxy: FaultProxy, bucket: str) -> None:
    direct.put_object(Bucket=bucket, Key="slow", Body=b"x" * 100)
    proxy.fail(Slow(delay=0.2))
    began = time.monotonic()
    assert body_of(client, bucket, "slow") == b"x" * 100
    assert time.monotonic() - began >= 0.2
    assert proxy.requests[0].duration >= 0.2


def test_a_slow_body_trickles(client: Any, direct: Any, proxy: FaultProxy, bucket: str) -> None:
    direct.put_object(Bucket=bucket, Key="slow", Body=b"x" * 1000)
    proxy.fail(Slow(bytes_per_second=4000))
    began = time.monotonic()
    assert body_of(client, bucket, "slow") == b"x" * 1000
    assert 0.15 <= time.monotonic() - began < 2


def test_a_delay_longer_than_the_timeout_is_a_timeout_of_an_applied_request(
    server: SeaweedServer, direct: Any, proxy: FaultProxy, bucket: str
) -> None:
    proxy.fail(Slow(delay=30), method="PUT")
    impatient = server.client(endpoint_url=proxy.endpoint_url, read_timeout=0.3)
    with pytest.raises(ReadTimeoutError):
        impatient.put_object(Bucket=bucket, Key="too-slow", Body=b"x")
    assert body_of(direct, bucket, "too-slow") == b"x"


def test_clearing_the_faults_lets_slow_answers_run(client: Any, direct: Any, proxy: FaultProxy, bucket: str) -> None:
    direct.put_object(Bucket=bucket, Key="slow", Body=b"x" * 1000)
    proxy.fail(Slow(bytes_per_second=50, delay=60))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(body_of, client, bucket, "slow")
        while not proxy.count("GET"):
            time.sleep(0.01)
        time.sleep(0.05)
        proxy.clear_faults()
        assert reading.result(5) == b"x" * 1000


def test_a_black_hole_answers_nothing_until_the_client_gives_up(
    server: SeaweedServer, client: Any, direct: Any, proxy: FaultProxy, bucket: str
) -> None:
    proxy.fail(BlackHole(), method="PUT")
    with pytest.raises(ReadTimeoutError):
        server.client(endpoint_url=proxy.endpoint_url, read_timeout=0.3).put_object(
            Bucket=bucket, Key="hole", Body=b"x" * 200_000
        )
    assert not exists(direct, bucket, "hole")
    assert proxy.count("PUT") == 1
    client.put_object(Bucket=bucket, Key="hole", Body=b"y")
    assert body_of(direct, bucket, "hole") == b"y"


@pytest.mark.parametrize("how", ["stop", "clear_faults"])
def test_a_client_in_a_black_hole_is_let_go(client: Any, proxy: FaultProxy, bucket: str, how: str) -> None:
    proxy.fail(BlackHole(), times=None)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(client.head_object, Bucket=bucket, Key="x") for _ in range(4)]
        while proxy.count() < 4:
            time.sleep(0.01)
        began = time.monotonic()
        getattr(proxy, how)()
        for each in waiting:
            assert isinstance(each.exception(5), BotoCoreError)
        assert time.monotonic() - began < 1
    if how == "stop":
        assert not [t for t in threading.enumerate() if t.name == f"fault-proxy-{proxy._port}"]


def test_one_bit_of_a_corrupt_body_is_flipped(client: Any, direct: Any, proxy: FaultProxy, bucket: str) -> None:
    data = os.urandom(200_000)
    direct.put_object(Bucket=bucket, Key="corrupt", Body=data)
    for at_byte, flipped in ((0, 0), (150_000, 150_000), (10**9, len(data) - 1)):
        proxy.fail(Corrupt(at_byte), method="GET")
        received = client.get_object(Bucket=bucket, Key="corrupt", Range=f"bytes=0-{len(data) - 1}")["Body"].read()
        assert [i for i, pair in enumerate(zip(data, received, strict=True)) if pair[0] != pair[1]] == [flipped]
        assert (data[flipped] ^ received[flipped]).bit_count() == 1


def test_a_corrupt_chunked_body_keeps_its_framing() -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n"
    for at_byte, expected in (
        (1, answer.replace(b"ok", b"oj")),
        (2, answer.replace(b"!", b" ")),
        (99, answer.replace(b"!", b" ")),
    ):
        with Script((b"\r\n\r\n", answer)) as script, FaultProxy(script.endpoint_url) as proxy:
            proxy.fail(Corrupt(at_byte))
            with connect(proxy) as connection:
                connection.sendall(b"GET /b/k HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_exactly(connection, len(answer)) == expected


# --- Which requests are struck


def test_a_rule_strikes_as_often_as_it_says(client: Any, proxy: FaultProxy, bucket: str) -> None:
    rule = proxy.fail(Status(500), times=2)
    outcomes = [proxy_status(client, bucket) for _ in range(4)]
    assert outcomes == [500, 500, 200, 200]
    assert rule.hits == 2


def test_a_rule_without_end_strikes_until_it_is_cleared(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(500), times=None)
    assert [proxy_status(client, bucket) for _ in range(3)] == [500, 500, 500]
    proxy.clear_faults()
    assert proxy_status(client, bucket) == 200


def test_a_flapping_server_fails_every_second_request(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(503), times=None, every=2)
    assert [proxy_status(client, bucket) for _ in range(4)] == [200, 503, 200, 503]


def test_a_rule_may_let_some_pass_first(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(503), after=2)
    assert [proxy_status(client, bucket) for _ in range(4)] == [200, 200, 503, 200]


def test_a_sequence_goes_from_fault_to_fault(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Sequence((Status(503), None, Status(403))))
    assert [proxy_status(client, bucket) for _ in range(4)] == [503, 200, 403, 200]
    proxy.fail(Sequence((Status(503), None)), times=None)
    assert [proxy_status(client, bucket) for _ in range(4)] == [503, 200, 503, 200]
    with pytest.raises(ValueError, match="needs a fault"):
        proxy.fail(Sequence(()))


@pytest.mark.parametrize("key", ["^a/", re.compile("^A/", re.IGNORECASE), lambda key: key.startswith("a/")])
def test_only_the_named_keys_are_struck(client: Any, proxy: FaultProxy, bucket: str, key: Any) -> None:
    proxy.fail(Status(500), key=key, times=None)
    client.put_object(Bucket=bucket, Key="b/a/1", Body=b"")
    with pytest.raises(ClientError):
        client.put_object(Bucket=bucket, Key="a/1", Body=b"")


def test_a_function_sees_headers_and_query(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(501), when=lambda request: "if-none-match" in request.headers, times=None)
    client.put_object(Bucket=bucket, Key="when", Body=b"")
    with pytest.raises(ClientError):
        client.put_object(Bucket=bucket, Key="when", Body=b"", IfNoneMatch="*")
    proxy.fail(Status(501), when=lambda request: "list-type" in request.parameters)
    with pytest.raises(ClientError):
        client.list_objects_v2(Bucket=bucket)


def test_of_two_rules_the_first_one_decides(client: Any, proxy: FaultProxy, bucket: str) -> None:
    proxy.fail(Status(500))
    proxy.fail(Status(503))
    assert [proxy_status(client, bucket) for _ in range(3)] == [500, 503, 200]


# --- Start and stop


def test_a_stopped_proxy_refuses_connections_and_comes_back_on_its_port(
    client: Any, proxy: FaultProxy, bucket: str
) -> None:
    assert proxy_status(client, bucket) == 200
    proxy.stop()
    with pytest.raises((EndpointConnectionError, ConnectionClosedError)):
        client.head_bucket(Bucket=bucket)
    proxy.start()
    assert proxy_status(client, bucket) == 200


def test_a_proxy_that_was_not_started_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        _ = FaultProxy("http://127.0.0.1:1").endpoint_url


def test_an_address_that_cannot_be_read_along_is_refused() -> None:
    with pytest.raises(ValueError, match="http://"):
        FaultProxy("https://s3.example.com")


def test_a_checksum_that_the_server_keeps_catches_a_corrupt_body(
    server: SeaweedServer, proxy: FaultProxy, direct: Any, bucket: str
) -> None:
    direct.put_object(Bucket=bucket, Key="summed", Body=b"x" * 100, ChecksumAlgorithm="CRC32")
    proxy.fail(Corrupt(3), method="GET")
    careful = server.client(
        endpoint_url=proxy.endpoint_url, config=Config(response_checksum_validation="when_supported")
    )
    with pytest.raises(FlexibleChecksumError):
        body_of(careful, bucket, "summed")


def proxy_status(client: Any, bucket: str) -> int:
    try:
        answer = client.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as error:
        answer = error.response
    status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status
