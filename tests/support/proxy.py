"""A wire that counts and breaks: a proxy between the code under test and a real S3 server.

A mocked client can only fail in the ways its author thought of. Here the real client, its real connection pool and the
real server meet real network faults: a lost answer, a request that lands minutes later, a body that ends early.
Requests are passed on byte by byte, the Host header included, since the signature covers it. Nothing here needs pytest.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import TypeAlias, final
from urllib.parse import parse_qs, unquote, urlsplit

HOST = "127.0.0.1"
_PIECE = 1 << 16
_LONGEST_HEAD = 1 << 18
# How long to wait for the server's "100 Continue" before the body is sent anyway.
_CONTINUE_WAIT = 1.0


# --- What can go wrong ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status:
    """An error answer that the server never hears of (a body of one's own may be anything, a captive portal's too)."""

    status: int = 503
    code: str | None = None
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Refused:
    """The connection ends before anything has reached the server."""


@dataclass(frozen=True)
class LostAnswer:
    """The server does what it was asked, but the answer never arrives."""


@dataclass(frozen=True)
class HeldAndLate:
    """The request gets stuck on its way and reaches the server only upon `FaultProxy.release`.

    The client sees its connection end at once, or with ``hang`` waits until its own timeout.
    """

    hang: bool = False


@dataclass(frozen=True)
class Truncated:
    """The answer promises its whole length and ends after ``at_bytes`` of its body."""

    at_bytes: int = 0


@dataclass(frozen=True)
class Slow:
    """The answer starts ``delay`` seconds late, or its body trickles, or both."""

    delay: float = 0
    bytes_per_second: float | None = None


@dataclass(frozen=True)
class BlackHole:
    """Everything is taken in, nothing reaches the server and no answer ever comes."""


@dataclass(frozen=True)
class Corrupt:
    """One bit of the answer's body is flipped, in the byte ``at_byte`` (the last one, if the body is shorter)."""

    at_byte: int = 0


@dataclass(frozen=True)
class Sequence:
    """One after the other, where None lets a request pass; over and over if the rule goes on for longer."""

    faults: tuple[Fault | None, ...]


Fault: TypeAlias = Status | Refused | LostAnswer | HeldAndLate | Truncated | Slow | BlackHole | Corrupt
KeyFilter: TypeAlias = "str | re.Pattern[str] | Callable[[str], bool]"

_CODES = {
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    408: "RequestTimeout",
    409: "ConditionalRequestConflict",
    412: "PreconditionFailed",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
    507: "InsufficientStorage",
}


# --- What was seen on the wire -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """One request as it crossed the wire."""

    method: str
    path: str
    """As sent, percent-encoded."""
    query: str
    headers: Mapping[str, str]
    """The names in lower case."""
    status: int | None = None
    """What the client was told; None if it got no answer (yet)."""
    body_bytes: int = 0
    """The request's body as framed by the client: aws-chunked adds its signatures."""
    duration: float = 0.0
    """Seconds from the head of the request to the end of the answer."""
    answer_bytes: int = 0
    """The body of the answer that was sent on."""
    server_status: int | None = None
    """What the server answered, also where the client never learnt it."""
    fault: Fault | None = None

    @property
    def bucket(self) -> str:
        """The first part of the path: these servers are addressed by path."""
        return unquote(self.path.lstrip("/").partition("/")[0])

    @property
    def key(self) -> str:
        """The object's key, decoded; empty for a request to the bucket itself."""
        return unquote(self.path.lstrip("/").partition("/")[2])

    @property
    def parameters(self) -> dict[str, list[str]]:
        """The query, decoded."""
        return parse_qs(self.query, keep_blank_values=True)


def _key_matches(wanted: KeyFilter | None, key: str) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, (str, re.Pattern)):
        return re.search(wanted, key) is not None
    return wanted(key)


class Rule:
    """Which requests a fault strikes; `FaultProxy.fail` makes it and tells what the parts mean."""

    def __init__(
        self,
        fault: Fault | Sequence,
        method: str | None,
        key: KeyFilter | None,
        when: Callable[[Request], bool] | None,
        times: int | None,
        after: int,
        every: int,
    ) -> None:
        self.fault = fault
        self.hits = 0
        """How many requests it has struck (those that a sequence let pass included)."""
        self._method = method
        self._key = key
        self._when = when
        self._times = times
        self._after = after
        self._every = every
        self._matched = 0

    def strike(self, request: Request) -> tuple[bool, Fault | None]:
        """Whether this rule decides over the request, and how."""
        if self._times is not None and self.hits >= self._times:
            return False, None
        if self._method is not None and request.method != self._method:
            return False, None
        if not _key_matches(self._key, request.key) or not (self._when is None or self._when(request)):
            return False, None
        self._matched += 1
        if self._matched <= self._after or (self._matched - self._after) % self._every:
            return False, None
        self.hits += 1
        if isinstance(self.fault, Sequence):
            return True, self.fault.faults[(self.hits - 1) % len(self.fault.faults)]
        return True, self.fault


@dataclass
class _Record:
    """A request under way. It is in the list from its first byte on: a count must not lag behind the client."""

    seen: Request
    started: float
    status: int | None = None
    body_bytes: int = 0
    duration: float | None = None
    answer_bytes: int = 0
    server_status: int | None = None
    fault: Fault | None = None

    def freeze(self) -> Request:
        return Request(
            method=self.seen.method,
            path=self.seen.path,
            query=self.seen.query,
            headers=self.seen.headers,
            status=self.status,
            body_bytes=self.body_bytes,
            duration=time.monotonic() - self.started if self.duration is None else self.duration,
            answer_bytes=self.answer_bytes,
            server_status=self.server_status,
            fault=self.fault,
        )


@dataclass(frozen=True)
class _Held:
    head: bytes
    body: bytes
    request: Request


# --- HTTP/1.1 over sockets -----------------------------------------------------------------------------------------


class _GoneError(ConnectionError):
    """The other end closed the connection in the middle of a message."""


class _Wire:
    """One connection, read message by message without changing a byte."""

    def __init__(self, connection: socket.socket) -> None:
        # Small packets must go out at once: waiting for an acknowledgement would add 40 ms to each request.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self._buffer = b""

    def _fill(self) -> None:
        piece = self.socket.recv(_PIECE)
        if not piece:
            raise _GoneError("the connection ended early")
        self._buffer += piece

    def until(self, mark: bytes) -> bytes:
        start = 0
        while True:
            found = self._buffer.find(mark, start)
            if found >= 0:
                end = found + len(mark)
                taken, self._buffer = self._buffer[:end], self._buffer[end:]
                return taken
            if len(self._buffer) > _LONGEST_HEAD:
                raise ConnectionError("a message's head is too long")
            start = max(0, len(self._buffer) - len(mark) + 1)
            self._fill()

    def some(self, most: int) -> bytes:
        if not self._buffer:
            self._fill()
        taken, self._buffer = self._buffer[:most], self._buffer[most:]
        return taken

    def counted(self, length: int) -> Iterator[bytes]:
        while length > 0:
            piece = self.some(min(length, _PIECE))
            length -= len(piece)
            yield piece

    def is_stale(self) -> bool:
        """Whether an idle connection was closed by the other end (or has bytes that nobody asked for)."""
        if self._buffer:
            return True
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.setblocking(True)
        return True

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def close(self) -> None:
        # shutdown works even while a forked child holds a copy of the socket; close alone would leave it open.
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@dataclass(frozen=True)
class _Head:
    raw: bytes
    start: tuple[str, str, str]
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> _Head:
        lines = raw.decode("latin-1").split("\r\n")
        first = (*lines[0].split(" ", 2), "", "")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if colon:
                headers[name.strip().lower()] = value.strip()
        return cls(raw=raw, start=(first[0], first[1], first[2]), headers=MappingProxyType(headers))

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def closes(self) -> bool:
        connection = self.headers.get("connection", "").lower()
        version = self.start[0] if self.start[0].startswith("HTTP/") else self.start[2]
        return connection == "close" or (version == "HTTP/1.0" and connection != "keep-alive")

    @property
    def expects_continue(self) -> bool:
        # botocore also asks for leave to send a body of no bytes.
        has_body = self.is_chunked or self.headers.get("content-length", "0") != "0"
        return has_body and self.headers.get("expect", "").lower() == "100-continue"


def _body(wire: _Wire, head: _Head, *, until_close: bool = False) -> Iterator[tuple[bytes, bool]]:
    """The body's raw bytes piece by piece, each with whether it is payload (or the framing of a chunked body)."""
    if head.is_chunked:
        while True:
            line = wire.until(b"\r\n")
            yield line, False
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            for piece in wire.counted(size):
                yield piece, True
            yield wire.until(b"\r\n"), False
        while True:  # the trailers
            line = wire.until(b"\r\n")
            yield line, False
            if line == b"\r\n":
                return
    elif "content-length" in head.headers:
        for piece in wire.counted(int(head.headers["content-length"])):
            yield piece, True
    elif until_close:
        while True:
            try:
                piece = wire.some(_PIECE)
            except _GoneError:
                return
            yield piece, True


@dataclass
class _Exchange:
    """One request on its way: where it came from, what it is and what shall happen to it."""

    client: _Wire
    head: _Head
    record: _Record
    fault: Fault | None
    mercy: threading.Event
    continued: bool = False

    def invite_body(self) -> None:
        """Tell a client that asked for it to go on and send the body."""
        if self.head.expects_continue and not self.continued:
            self.continued = True
            self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def read_body(self) -> Iterator[bytes]:
        for piece, is_payload in _body(self.client, self.head):
            if is_payload:
                self.record.body_bytes += len(piece)
            yield piece


# --- The proxy -----------------------------------------------------------------------------------------------------


@final
class FaultProxy:
    """Stands in front of an S3 server, records each request and breaks those that a rule names."""

    def __init__(self, endpoint_url: str) -> None:
        target = urlsplit(endpoint_url)
        if target.scheme != "http" or target.hostname is None:
            raise ValueError("the proxy reads what it passes on, so it can only stand in front of http://host:port")
        self._target = (target.hostname, target.port or 80)
        self._lock = threading.Lock()
        self._records: list[_Record] = []
        self._rules: list[Rule] = []
        self._held: list[_Held] = []
        self._wires: set[_Wire] = set()
        self._hanging: set[_Wire] = set()
        self._threads: set[threading.Thread] = set()
        self._mercy = threading.Event()
        self._stopping = False
        self._listener: socket.socket | None = None
        self._port = 0
        self._owner = 0

    def __enter__(self) -> FaultProxy:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Where a client has to be pointed at."""
        if not self._port:
            raise RuntimeError("the proxy has not been started")
        return f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Listen; connections are accepted as soon as this returns."""
        if self._listener is not None:
            return
        self._stopping = False
        self._mercy = threading.Event()
        self._listener = socket.create_server((HOST, self._port), backlog=256)
        self._port = self._listener.getsockname()[1]
        self._owner = os.getpid()
        self._spawn(self._accept, self._listener)

    def stop(self) -> None:
        """Close every connection, those in a black hole too. A start after it listens on the same port again.

        A forked child that inherited this object must not cut the parent's connections.
        """
        listener, self._listener = self._listener, None
        if listener is None or self._owner != os.getpid():
            return
        with self._lock:
            self._stopping = True
            self._mercy.set()
            wires, threads = list(self._wires), list(self._threads)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 5
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # What was seen

    @property
    def requests(self) -> list[Request]:
        """All requests in the order of their arrival, those under way included."""
        with self._lock:
            return [record.freeze() for record in self._records]

    def seen(
        self,
        method: str | None = None,
        key: KeyFilter | None = None,
        *,
        status: int | None = None,
        when: Callable[[Request], bool] | None = None,
    ) -> list[Request]:
        """The requests of a method, for a key (an expression or a function), answered so, that fulfil ``when``."""
        return [
            request
            for request in self.requests
            if (method is None or request.method == method)
            and _key_matches(key, request.key)
            and (status is None or request.status == status)
            and (when is None or when(request))
        ]

    def count(
        self,
        method: str | None = None,
        key: KeyFilter | None = None,
        *,
        status: int | None = None,
        when: Callable[[Request], bool] | None = None,
    ) -> int:
        """How many requests `seen` would return."""
        return len(self.seen(method, key, status=status, when=when))

    def clear(self) -> None:
        """Forget the requests seen so far; the rules stay."""
        with self._lock:
            self._records.clear()

    # What shall go wrong

    def fail(
        self,
        fault: Fault | Sequence,
        *,
        method: str | None = None,
        key: KeyFilter | None = None,
        when: Callable[[Request], bool] | None = None,
        times: int | None = 1,
        after: int = 0,
        every: int = 1,
    ) -> Rule:
        """Let requests fail: of one method, for a key (a regular expression or a function), or as ``when`` decides.

        The first ``after`` matches pass, then every ``every``-th one is struck, ``times`` of them (None: for ever; a
        sequence is gone through once unless more is asked for). Of several rules the one made first decides.
        """
        if isinstance(fault, Sequence):
            if not fault.faults:
                raise ValueError("a sequence needs a fault")
            if times == 1:
                times = len(fault.faults)
        rule = Rule(fault, method, key, when, times, after, every)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear_faults(self) -> None:
        """Heal the wire: drop the rules, hang up on clients that wait in a black hole, let slow answers run.

        Requests that are held stay held until `release`.
        """
        with self._lock:
            self._rules.clear()
            self._mercy.set()
            self._mercy = threading.Event()
            hanging = list(self._hanging)
        for wire in hanging:
            with contextlib.suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)

    @property
    def held(self) -> list[Request]:
        """The requests that wait for `release`."""
        with self._lock:
            return [held.request for held in self._held]

    def release(self) -> list[int]:
        """Send the held requests to the server, in the order of their arrival; its answers' status codes.

        Where the server can't be reached, the rest stays held.
        """
        statuses: list[int] = []
        while True:
            with self._lock:
                held = self._held[0] if self._held else None
            if held is None:
                return statuses
            wire = self._connect()
            try:
                wire.send(held.head + held.body)
                answer = _Head.parse(wire.until(b"\r\n\r\n"))
                while answer.start[1].startswith("1"):
                    answer = _Head.parse(wire.until(b"\r\n\r\n"))
                statuses.append(int(answer.start[1]))
            finally:
                self._close(wire)
            with self._lock:
                self._held = [other for other in self._held if other is not held]

    def drop_held(self) -> None:
        """Let the held requests be lost for good."""
        with self._lock:
            self._held.clear()

    # Threads and connections

    def _spawn(self, target: Callable[[socket.socket], None], argument: socket.socket) -> None:
        def run() -> None:
            try:
                target(argument)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"fault-proxy-{self._port}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._spawn(self._serve, connection)

    def _adopt(self, connection: socket.socket) -> _Wire:
        wire = _Wire(connection)
        with self._lock:
            self._wires.add(wire)
            stopping = self._stopping
        if stopping:
            self._close(wire)
            raise _GoneError("the proxy stops")
        return wire

    def _connect(self) -> _Wire:
        return self._adopt(socket.create_connection(self._target, timeout=None))

    def _close(self, wire: _Wire | None) -> None:
        if wire is not None:
            with self._lock:
                self._wires.discard(wire)
                self._hanging.discard(wire)
            wire.close()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one client connection until either end has had enough."""
        client: _Wire | None = None
        server: _Wire | None = None
        try:
            client = self._adopt(connection)
            while True:
                head = _Head.parse(client.until(b"\r\n\r\n"))
                exchange = self._begin(client, head)
                try:
                    goes_on, server = self._exchange(exchange, server)
                finally:
                    exchange.record.duration = time.monotonic() - exchange.record.started
                if not goes_on:
                    return
        except (OSError, ValueError):
            # A connection that breaks, or bytes that aren't HTTP: both ends learn of it by the connection's end.
            return
        finally:
            self._close(server)
            self._close(client)
            connection.close()

    def _begin(self, client: _Wire, head: _Head) -> _Exchange:
        method, target, _ = head.start
        path, _, query = target.partition("?")
        seen = Request(method=method, path=path, query=query, headers=head.headers)
        record = _Record(seen=seen, started=time.monotonic())
        with self._lock:
            self._records.append(record)
            for rule in self._rules:
                decided, fault = rule.strike(seen)
                if decided:
                    record.fault = fault
                    break
            return _Exchange(client, head, record, record.fault, self._mercy)

    def _exchange(self, exchange: _Exchange, server: _Wire | None) -> tuple[bool, _Wire | None]:
        """Handle one request: whether the client may send another, and the connection to the server for it."""
        fault = exchange.fault
        if isinstance(fault, Status):
            self._answer(exchange, fault)
            return not exchange.head.closes, server
        if isinstance(fault, Refused):
            return False, server
        if isinstance(fault, BlackHole):
            self._swallow(exchange)
            return False, server
        if isinstance(fault, HeldAndLate):
            self._hold(exchange, fault)
            return False, server
        if server is not None and server.is_stale():
            self._close(server)
            server = None
        server = server or self._connect()
        try:
            return self._forward(exchange, server), server
        except BaseException:
            self._close(server)
            raise

    # The faults without the server

    def _hang(self, exchange: _Exchange) -> None:
        """Keep the client waiting until it gives up, or until somebody has mercy."""
        with self._lock:
            if exchange.mercy.is_set():
                return
            self._hanging.add(exchange.client)
        with contextlib.suppress(_GoneError):
            while True:
                exchange.client.some(_PIECE)

    def _swallow(self, exchange: _Exchange) -> None:
        # No "100 Continue" either. The client sends its body after a while all the same.
        with self._lock:
            self._hanging.add(exchange.client)
        for _ in exchange.read_body():
            pass
        self._hang(exchange)

    def _hold(self, exchange: _Exchange, fault: HeldAndLate) -> None:
        exchange.invite_body()
        body = b"".join(exchange.read_body())
        # Without Expect: the body follows at once. (The signature doesn't cover it.)
        head = re.sub(rb"(?im)^expect:[^\r\n]*\r\n", b"", exchange.head.raw)
        with self._lock:
            self._held.append(_Held(head, body, exchange.record.freeze()))
        if fault.hang:
            self._hang(exchange)

    def _answer(self, exchange: _Exchange, fault: Status) -> None:
        exchange.invite_body()
        for _ in exchange.read_body():
            pass
        body, kind = fault.body, "text/html"
        if body is None:
            code, kind = fault.code or _CODES.get(fault.status, "InternalError"), "application/xml"
            body = (
                '<?xml version="1.0" encoding="UTF-8"?>\n'
                f"<Error><Code>{code}</Code><Message>Made by the test.</Message><RequestId>0</RequestId></Error>"
            ).encode()
        if fault.status in (204, 304):
            body = b""
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("x-amz-request-id", "0")]
        lines = [f"{name}: {value}\r\n" for name, value in (*headers, *fault.headers)]
        head = f"HTTP/1.1 {fault.status} Made by the test\r\n{''.join(lines)}\r\n".encode("latin-1")
        exchange.record.status = fault.status
        if exchange.record.seen.method == "HEAD":
            body = b""
        exchange.record.answer_bytes = len(body)
        exchange.client.send(head + body)

    # The way to the server and back

    def _forward(self, exchange: _Exchange, server: _Wire) -> bool:
        """Pass a request on and its answer back; whether the client may send another one."""
        answer = self._send(exchange, server)
        if answer is None:
            answer = _Head.parse(server.until(b"\r\n\r\n"))
        while answer.start[1].startswith("1"):
            # A late "100 Continue"; the client has long been told.
            answer = _Head.parse(server.until(b"\r\n\r\n"))
        status = int(answer.start[1])
        exchange.record.server_status = status
        has_body = exchange.record.seen.method != "HEAD" and status not in (204, 304)
        ends_by_close = has_body and not answer.is_chunked and "content-length" not in answer.headers
        body = _body(server, answer, until_close=True) if has_body else iter(())
        if isinstance(exchange.fault, LostAnswer):
            for _ in body:  # to its end: the server has done what it was asked
                pass
            return False
        if isinstance(exchange.fault, Slow):
            exchange.mercy.wait(exchange.fault.delay)
        exchange.record.status = status
        exchange.record.duration = time.monotonic() - exchange.record.started
        exchange.client.send(answer.raw)
        if not self._pass_back(exchange, body):
            return False
        unread = exchange.head.expects_continue and not exchange.continued
        return not (unread or ends_by_close or answer.closes or exchange.head.closes)

    def _send(self, exchange: _Exchange, server: _Wire) -> _Head | None:
        """Send the request. The answer's head, if the server gave it before it wanted the body."""
        server.send(exchange.head.raw)
        if exchange.head.expects_continue:
            server.socket.settimeout(_CONTINUE_WAIT)
            try:
                answer = _Head.parse(server.until(b"\r\n\r\n"))
                if answer.start[1] != "100":
                    return answer
            except TimeoutError:
                pass
            finally:
                server.socket.settimeout(None)
            exchange.invite_body()
        broken = False
        for piece in exchange.read_body():
            # A server that refuses a request may stop reading; the client still has to get rid of the body before it
            # looks at the answer.
            if not broken:
                try:
                    server.send(piece)
                except OSError:
                    broken = True
        return None

    def _pass_back(self, exchange: _Exchange, body: Iterator[tuple[bytes, bool]]) -> bool:
        """Pass the answer's body back as the fault wants it; False if it was cut off."""
        fault, record, client = exchange.fault, exchange.record, exchange.client
        if isinstance(fault, Corrupt):
            body = _flip(body, fault.at_byte)
        for piece, is_payload in body:
            data = piece
            if isinstance(fault, Truncated) and is_payload:
                data = piece[: fault.at_bytes - record.answer_bytes]
            if is_payload:
                record.answer_bytes += len(data)
            if isinstance(fault, Slow) and fault.bytes_per_second:
                self._trickle(exchange, data, fault.bytes_per_second)
            else:
                client.send(data)
            if isinstance(fault, Truncated) and is_payload and record.answer_bytes >= fault.at_bytes:
                return False
        return not isinstance(fault, Truncated)

    @staticmethod
    def _trickle(exchange: _Exchange, data: bytes, bytes_per_second: float) -> None:
        client, mercy = exchange.client, exchange.mercy
        step = max(1, int(bytes_per_second / 20))
        for start in range(0, len(data), step):
            if mercy.is_set():
                client.send(data[start:])
                return
            piece = data[start : start + step]
            client.send(piece)
            mercy.wait(len(piece) / bytes_per_second)


def _flip(body: Iterator[tuple[bytes, bool]], at_byte: int) -> Iterator[tuple[bytes, bool]]:
    """Flip a bit of one byte of the payload. One piece is kept back: only the next tells whether it was the last."""
    passed = 0
    flipped = False
    framing: list[bytes] = []
    last: bytes | None = None
    for piece, is_payload in body:
        if not is_payload:
            framing.append(piece)
            continue
        if last is not None:
            yield last, True
        for raw in framing:
            yield raw, False
        framing.clear()
        if not flipped and passed <= at_byte < passed + len(piece):
            changed = bytearray(piece)
            changed[at_byte - passed] ^= 1
            last, flipped = bytes(changed), True
        else:
            last = piece
        passed += len(piece)
    if last is not None:
        yield (last if flipped else last[:-1] + bytes([last[-1] ^ 1])), True
    for raw in framing:
        yield raw, False
