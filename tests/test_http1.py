"""HTTP/1.1 as servers and the network really speak it: byte by byte, on real sockets."""

from __future__ import annotations

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from django_dualstorage.engine import http1
from django_dualstorage.engine.http1 import NoAnswerError, Peer, Pool
from tests.support.fork import run_in_child

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Script:
    """A server that gives its answers one after the other, whatever it is asked. None closes the connection."""

    def __init__(self, answers: list[bytes | None], *, reads: int = 1 << 20) -> None:
        self._answers = answers
        self._reads = reads
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.received: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def pool(self, *, read_timeout: float = 0.5) -> Pool:
        host, port = self._listener.getsockname()
        return Pool(Peer(host, port, 0.5, read_timeout))

    def _serve(self) -> None:
        with suppress(OSError):
            while self._answers:
                connection, _ = self._listener.accept()
                self.connections += 1
                with closing(connection), suppress(OSError):
                    while self._answers:
                        data = connection.recv(self._reads)
                        if not data:
                            break
                        self.received.append(data)
                        answer = self._answers.pop(0)
                        if answer is None:
                            break
                        connection.sendall(answer)
                    else:
                        connection.recv(1)  # until the client has gone

    def close(self) -> None:
        self._answers.clear()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        assert not self._thread.is_alive()


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    made: list[tuple[Script, list[Pool]]] = []

    def make(*answers: bytes | None, **options: Any) -> Script:
        one, pools, new = Script(list(answers), **options), [], Script.pool

        def pool(**more: Any) -> Pool:
            pools.append(new(one, **more))
            return pools[-1]

        one.pool = pool  # type: ignore[method-assign]
        made.append((one, pools))
        return one

    yield make
    for one, pools in made:
        for pool in pools:
            while pool._idle:
                pool._idle.pop().close()
        one.close()


def ask(pool: Pool, body: bytes = b"", *, bodiless: bool = False) -> tuple[int, bytes]:
    answer = pool.request(HEAD, body, bodiless=bodiless)
    return answer.status, answer.text()


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 200\r\ncontent-length:3\r\nCONTENT-LENGTH: 3\r\n\r\nabc", (200, b"abc")),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\na: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n", (204, b"")),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
         (200, b"abc0123456789")),
        (b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n000\r\nx: y\r\nz: 1\r\n\r\n", (503, b"")),
    ],
)  # fmt: skip
def test_an_answer_is_read_to_its_end_and_the_connection_used_again(
    script: Any, answer: bytes, expected: tuple[int, bytes]
) -> None:
    server = script(answer, answer)
    pool = server.pool()
    assert ask(pool) == ask(pool) == expected
    assert (server.connections, server.received) == (1, [HEAD, HEAD])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Close\r\n\r\na",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
    ],
)
def test_a_connection_is_not_used_again_after(script: Any, answer: bytes) -> None:
    server = script(answer, EMPTY)
    pool = server.pool()
    assert ask(pool) == (200, b"a")
    assert ask(pool) == (200, b"")
    assert server.connections == 2


def test_an_answer_may_come_byte_by_byte() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with closing(listener):

        def trickle() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(1000)
                for (
                    byte
                ) in b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: x\r\nx-amz-meta-a: 1\r\nx-amz-meta-a: 2\r\n\r\nab":
                    connection.sendall(bytes([byte]))

        thread = threading.Thread(target=trickle)
        thread.start()
        pool = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 1))
        answer = pool.request(HEAD, b"", bodiless=False)
        assert answer.headers == {"content-length": "2", "etag": "x", "x-amz-meta-a": "1, 2"}
        assert (answer.read(1), answer.read(), answer.read()) == (b"a", b"b", b"")
        thread.join(5)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "closed before an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-", "silent"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/2 200\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 2x0\r\n\r\n", "not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "no name"),
        (b"HTTP/1.1 200 OK\r\na: b\r\n folded: c\r\n\r\n", "no name"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n", "no name"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", "no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", "no number"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "several ways"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "several ways"),
        (b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000, "too long"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, "come to the point"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "no size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "no size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n", "as long as it says"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 2000, "too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20, "trailers"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "silent"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "silent"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_an_error(script: Any, answer: bytes | None, why: str) -> None:
    pool = script(answer).pool(read_timeout=0.2)
    with pytest.raises(NoAnswerError, match=why) as failure:
        ask(pool)
    assert failure.value.sent
    assert not pool._idle


@pytest.mark.parametrize("framing", [b"Content-Length: 6\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n6\r\nabc"])
def test_half_an_answer_is_an_error(framing: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with closing(listener):

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 200 OK\r\n" + framing)

        thread = threading.Thread(target=serve)
        thread.start()
        answer = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 1)).request(HEAD, b"", bodiless=False)
        assert answer.read(2) == b"ab"
        with pytest.raises(NoAnswerError, match="closed before the end"):
            answer.read()
        thread.join(5)


def test_without_a_length_the_end_of_the_connection_is_the_end() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 403 No\r\n\r\nuntil the end")

        thread = threading.Thread(target=serve)
        thread.start()
        pool = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 1))
        assert ask(pool) == (403, b"until the end")
        assert not pool._idle
        thread.join(5)


def test_the_answer_to_a_head_has_a_length_and_no_body(script: Any) -> None:
    pool = script(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", EMPTY).pool()
    answer = pool.request(HEAD, b"", bodiless=True)
    assert (answer.length, answer.read()) == (1000, b"")
    assert len(pool._idle) == 1


def test_an_object_that_is_not_read_gives_its_connection_up(script: Any) -> None:
    server = script(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", EMPTY)
    pool = server.pool()
    answer = pool.request(HEAD, b"", bodiless=False)
    assert answer.read(2) == b"ab"
    answer.close()
    assert answer.read() == b""
    assert ask(pool) == (200, b"")
    assert server.connections == 2


# -- connections -------------------------------------------------------------------------------------------------------


def test_a_connection_that_the_server_has_closed_is_not_used(script: Any) -> None:
    server = script(EMPTY, None, EMPTY)
    pool = server.pool()
    ask(pool)
    pool._idle[0]._socket.send(b"the server closes upon this")
    time.sleep(0.1)
    assert ask(pool) == (200, b"")
    assert server.connections == 2


def test_a_connection_that_has_been_idle_is_not_used(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = script(EMPTY, EMPTY, EMPTY, EMPTY)
    pool = server.pool()
    ask(pool)
    monkeypatch.setattr(http1, "_IDLE", 0.05)
    time.sleep(0.1)
    ask(pool)
    assert server.connections == 2
    # One that nobody takes is closed when the next one comes back.
    other, new = pool._idle[0], http1._Connection(pool.peer)
    time.sleep(0.1)
    pool._keep(new)
    assert list(pool._idle) == [new]
    assert other._socket.fileno() == -1


def test_a_kept_connection_that_dies_under_a_request_may_have_carried_it(script: Any) -> None:
    server = script(EMPTY, None)
    pool = server.pool()
    ask(pool)
    with pytest.raises(NoAnswerError, match="closed before an answer") as failure:
        ask(pool)
    assert failure.value.sent
    assert server.connections == 1


def test_the_last_connection_is_the_next(script: Any) -> None:
    servers = script(*[EMPTY] * 4)
    pool = servers.pool()
    ask(pool)
    first = pool._idle[0]
    ask(pool)
    assert list(pool._idle) == [first]


def test_nobody_there() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    for host in ("127.0.0.1", "no-such-host.invalid", "x" * 70 + ".invalid"):
        with pytest.raises(NoAnswerError, match="no connection") as failure:
            Pool(Peer(host, port, 1, 1)).request(HEAD, b"", bodiless=False)
        assert (failure.value.sent, failure.value.code) == (False, "EndpointConnectionError")


def test_connecting_takes_no_longer_than_it_may() -> None:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=0)) as listener:
        address = listener.getsockname()
        waiting = []
        for _ in range(4):  # more than its queue holds
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(address)
            waiting.append(one)
        with pytest.raises(NoAnswerError, match=r"connecting to .* took longer") as failure:
            Pool(Peer(address[0], address[1], 0.2, 1)).request(HEAD, b"", bodiless=False)
        assert (failure.value.sent, failure.value.code) == (False, "ConnectTimeoutError")
        for one in waiting:
            one.close()


def test_a_server_that_takes_nothing_is_given_up() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        pool = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 0.2))
        with pytest.raises(NoAnswerError, match="took no more") as failure:
            pool.request(HEAD, bytes(50_000_000), bodiless=False)
        assert failure.value.sent


def test_a_server_that_takes_little_at_a_time_is_waited_for() -> None:
    """The patience is for silence, not for the whole."""
    body = bytes(20_000_000)
    got = 0
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            nonlocal got
            connection, _ = listener.accept()
            with closing(connection):
                while got < len(HEAD) + len(body):
                    got += len(connection.recv(1 << 20))
                    time.sleep(0.01)
                connection.sendall(EMPTY)

        thread = threading.Thread(target=serve)
        thread.start()
        pool = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 0.15))
        started = time.monotonic()
        assert ask(pool, body) == (200, b"")
        assert time.monotonic() - started > 0.15
        thread.join(5)
    assert got == len(HEAD) + len(body)


def test_a_refusal_before_the_body_was_read_is_the_answer() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(10)
                connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
                connection.shutdown(socket.SHUT_WR)
                with suppress(OSError):
                    while connection.recv(1 << 20):  # else the answer is lost in the reset
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        pool = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 1))
        assert ask(pool, bytes(5_000_000)) == (403, b"no")
        assert [connection for connection in pool._idle if connection.is_fresh()] == []
        while pool._idle:
            pool._idle.pop().close()
        thread.join(5)


def test_threads_share_a_pool() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer(connection: socket.socket) -> None:
            with closing(connection), suppress(OSError):
                while connection.recv(1000):
                    connection.sendall(EMPTY)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    one = threading.Thread(target=answer, args=(listener.accept()[0],))
                    one.start()
                    threads.append(one)

        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=accept)
        accepting.start()
        pool = Pool(Peer("127.0.0.1", listener.getsockname()[1], 1, 5))
        found: list[tuple[int, bytes]] = []
        workers = [threading.Thread(target=lambda: found.extend(ask(pool) for _ in range(200))) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(10)
        assert found == [(200, b"")] * 1600
        assert 1 <= len(threads) <= 8
        while pool._idle:
            pool._idle.pop().close()
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(5)
        for thread in threads:
            thread.join(5)


def test_a_pool_that_is_dropped_leaves_no_open_socket(script: Any) -> None:
    """Nor a warning, be it dropped along with what refers to it."""
    host, port = script(EMPTY)._listener.getsockname()
    pool = Pool(Peer(host, port, 1, 1))
    ask(pool)
    connection = pool._idle[0]._socket
    holder: list[Any] = [pool]
    holder.append(holder)
    del pool, holder
    gc.collect()
    assert connection.fileno() == -1


def test_a_forked_child_closes_nothing_of_its_parents(script: Any) -> None:
    server = script(EMPTY, EMPTY)
    pools = [server.pool()]
    ask(pools[0])

    def drop() -> None:
        while pools[0]._idle:
            pools[0]._idle.pop().close()

    run_in_child(drop).unwrap()
    assert ask(pools[0]) == (200, b"")
    assert server.connections == 1
