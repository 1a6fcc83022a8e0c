"""As much of HTTP/1.1 as talking to one S3 server takes: requests with a body in memory, answers read as a stream.

"HTTP/1.1", RFC 9112. No redirects, no pipelining, no compression and no retries: who calls decides what an error means.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

#: Seconds after which an idle connection is given up: servers and what stands before them close theirs after 5 or more.
_IDLE: Final = 4.0
_PIECE: Final = 256 * 1024
_SOME: Final = 16 * 1024
#: Up to this a body is copied behind its head, so that both go out as one record.
_ONE_RECORD: Final = 64 * 1024
_LONGEST_HEAD: Final = 64 * 1024
_LONGEST_LINE: Final = 1024
_INTERIM_ANSWERS: Final = 10
#: What is read of an answer that is not an object.
_LONGEST_TEXT: Final = 4 * 1024 * 1024


class NoAnswerError(OSError):
    """No usable answer; ``sent`` tells whether the request may have reached the server.

    ``code`` is the name of the class that botocore has for it.
    """

    def __init__(self, message: str, code: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.sent = sent


@dataclass(frozen=True)
class Peer:
    """The server, and how to reach it. Times in seconds."""

    host: str
    port: int
    connect_timeout: float
    #: How long it may be silent, or take nothing of what it is sent.
    read_timeout: float
    #: None: no TLS.
    tls: ssl.SSLContext | None = field(default=None, repr=False)


class Answer:
    """Status, headers and, as it comes, the body. To be read to its end or closed."""

    def __init__(
        self, connection: _Connection, keep: Callable[[_Connection], None], status: int, headers: dict[str, str]
    ) -> None:
        """``keep`` takes the connection when the body was read to its end and another request may follow."""
        self.status = status
        #: Names in lower case; the values of one that came several times are joined by commas.
        self.headers = headers
        #: Bytes of the body, if it was announced.
        self.length: int | None = None
        self._chunked = False
        self._left = 0
        self._rest = b""
        self._connection: _Connection | None = connection
        self._keep = keep

    def expect(self, *, bodiless: bool) -> None:
        """Find out how the body ends (RFC 9112, section 6.3). Raises NoAnswerError if that isn't clear."""
        announced = self.headers.get("content-length")
        if announced is not None:
            if not (announced.isascii() and announced.isdigit() and len(announced) < 16):
                raise _malformed("its length is no number")
            self.length = self._left = int(announced)
        if bodiless or self.status in {204, 304}:
            self._left = 0
            self._end()
        elif coding := self.headers.get("transfer-encoding"):
            if coding.lower() != "chunked" or announced is not None:
                raise _malformed("its length is told in several ways")
            self._chunked = True
        elif self.length == 0:
            self._end()

    def read(self, size: int | None = None) -> bytes:
        """``size`` bytes, fewer only at the end; all that is left without ``size``. Raises OSError if it breaks off."""
        parts, found = [self._rest], len(self._rest)
        try:
            while (size is None or found < size) and (piece := self._more()):
                parts.append(piece)
                found += len(piece)
        except BaseException:
            self.close()
            raise
        content = b"".join(parts)
        if size is None:
            size = found
        self._rest = content[size:]
        return content[:size]

    def text(self) -> bytes:
        """The whole body, which is to be short. Raises OSError."""
        content = self.read(_LONGEST_TEXT)
        self.close()
        return content

    def close(self) -> None:
        """Give the connection up if bytes are left."""
        self._rest = b""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _more(self) -> bytes:
        connection = self._connection
        if connection is None:
            return b""
        if self._chunked and not self._left:
            self._left = connection.chunk_size()
            if not self._left:
                connection.skip_trailers()
                self._end()
                return b""
        until_close = not self._chunked and self.length is None
        piece = connection.some(_PIECE if until_close else min(self._left, _PIECE))
        if until_close:
            if not piece:
                self.close()
            return piece
        if not piece:
            raise NoAnswerError("the connection was closed before the end", "IncompleteReadError")
        self._left -= len(piece)
        if not self._left:
            if self._chunked:
                connection.end_of_chunk()
            else:
                self._end()
        return piece

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.may_be_kept(self.headers):
                self._keep(connection)
            else:
                connection.close()


class Pool:
    """Connections to one server, the one that was used last first. For any thread of the process that made it."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.pid = os.getpid()
        self._idle: deque[_Connection] = deque()
        # Not left to the garbage collector, which minds no order: a socket that it meets first warns of itself.
        weakref.finalize(self, _close_all, self._idle)

    def request(self, head: bytes, body: bytes, *, bodiless: bool) -> Answer:
        """Send a request once and wait for the head of its answer; ``bodiless`` if that was a HEAD.

        Raises NoAnswerError.
        """
        connection = self._kept() or _Connection(self.peer)
        try:
            connection.send(head, body)
            answer = Answer(connection, self._keep, *connection.answer())
            answer.expect(bodiless=bodiless)
        except BaseException:
            connection.close()
            raise
        return answer

    def _kept(self) -> _Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.is_fresh():
                return connection
            connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        try:
            oldest = self._idle.popleft()
        except IndexError:  # another thread has taken it already
            return
        if time.monotonic() - oldest.idle_since > _IDLE:
            oldest.close()
        else:
            self._idle.appendleft(oldest)


def _close_all(connections: deque[_Connection]) -> None:
    while connections:
        connections.pop().close()


class _Connection:
    def __init__(self, peer: Peer) -> None:
        self._socket = _connect(peer)
        self._tls = peer.tls is not None
        self._patience = peer.read_timeout
        self._buffer = b""
        self._usable = True
        self.idle_since = 0.0
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def close(self) -> None:
        self._socket.close()

    def is_fresh(self) -> bool:
        """Whether it may be used again: a server has nothing to say on an idle connection but that it's over."""
        return time.monotonic() - self.idle_since <= _IDLE and not self._poll.poll(0)

    # -- the request -----------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes) -> None:
        """Raises NoAnswerError."""
        try:
            if self._tls:
                if len(body) <= _ONE_RECORD:
                    head, body = head + body, b""
                self._send_all(head)
                self._send_all(body)
                return
            sent = self._socket.sendmsg((head, body))
            if sent < len(head) + len(body):
                self._send_all(memoryview(head)[sent:])
                self._send_all(memoryview(body)[max(0, sent - len(head)) :])
        except TimeoutError as error:
            raise NoAnswerError(
                f"the server took no more of the request for {self._patience:g} s", "ReadTimeoutError"
            ) from error
        except OSError:
            # A server that refuses a request may close before it has read it all; its answer tells more than this.
            self._usable = False

    def _send_all(self, data: bytes | memoryview) -> None:
        # Not sendall(): its time limit is for all of the data.
        view = memoryview(data)
        while view:
            view = view[self._socket.send(view[:_PIECE]) :]

    # -- the answer ------------------------------------------------------------------------------------------------

    def answer(self) -> tuple[int, dict[str, str]]:
        """Status and headers of the answer. Raises NoAnswerError."""
        for _ in range(_INTERIM_ANSWERS):
            status, headers = _parsed(self._until(b"\r\n\r\n", _LONGEST_HEAD))
            if status >= 200:
                return status, headers
        raise _malformed("it does not come to the point")

    def _until(self, mark: bytes, longest: int) -> bytes:
        """What comes before ``mark``, and that too."""
        searched = 0
        while (end := self._buffer.find(mark, searched)) < 0:
            if len(self._buffer) > longest:
                raise _malformed("it is too long")
            searched = max(0, len(self._buffer) - len(mark))
            more = self._received(_SOME)
            if not more:
                raise NoAnswerError("the connection was closed before an answer", "ConnectionClosedError")
            self._buffer += more
        end += len(mark)
        found, self._buffer = self._buffer[:end], self._buffer[end:]
        return found

    def some(self, most: int) -> bytes:
        """The next bytes, empty at the end of the connection. Raises NoAnswerError."""
        if self._buffer:
            found, self._buffer = self._buffer[:most], self._buffer[most:]
            return found
        return self._received(most)

    def _received(self, most: int) -> bytes:
        try:
            return self._socket.recv(most)
        except TimeoutError as error:
            raise NoAnswerError(f"the server was silent for {self._patience:g} s", "ReadTimeoutError") from error
        except OSError as error:
            raise NoAnswerError(f"the connection broke: {_reason(error)}", "ConnectionClosedError") from error

    def chunk_size(self) -> int:
        line = self._until(b"\r\n", _LONGEST_LINE).partition(b";")[0].strip()
        if not line or line.strip(b"0123456789abcdefABCDEF") or len(line) > 15:
            raise _malformed("a chunk has no size")
        return int(line, 16)

    def end_of_chunk(self) -> None:
        if self._until(b"\r\n", 2) != b"\r\n":
            raise _malformed("a chunk is not as long as it says")

    def skip_trailers(self) -> None:
        for _ in range(_INTERIM_ANSWERS):
            if self._until(b"\r\n", _LONGEST_LINE) == b"\r\n":
                return
        raise _malformed("it has too many trailers")

    def may_be_kept(self, headers: dict[str, str]) -> bool:
        """Whether another request may follow the answer with these headers, which was read to its end."""
        return self._usable and not self._buffer and "close" not in headers.get("connection", "").lower()


def _connect(peer: Peer) -> socket.socket:
    plain: socket.socket | None = None
    try:
        plain = socket.create_connection((peer.host, peer.port), timeout=peer.connect_timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready = plain if peer.tls is None else peer.tls.wrap_socket(plain, server_hostname=peer.host)
        ready.settimeout(peer.read_timeout)
    except (OSError, UnicodeError) as error:
        if plain is not None:
            plain.close()
        where = f"{peer.host}:{peer.port}"
        if isinstance(error, TimeoutError):
            why, code = f"connecting to {where} took longer than {peer.connect_timeout:g} s", "ConnectTimeoutError"
        elif isinstance(error, ssl.SSLError):
            why, code = f"there is no secure connection to {where}: {_reason(error)}", "SSLError"
        else:
            why, code = f"there is no connection to {where}: {_reason(error)}", "EndpointConnectionError"
        raise NoAnswerError(why, code, sent=False) from error
    return ready


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    return getattr(error, "strerror", None) or type(error).__name__


def _parsed(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers. Raises NoAnswerError."""
    first, *lines = head.decode("latin-1")[:-4].split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest[:3]
    if version not in {"HTTP/1.1", "HTTP/1.0"} or not (status.isascii() and status.isdigit() and len(status) == 3):
        raise _malformed("it is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name[0] in " \t" or name[-1] in " \t":
            raise _malformed("a header has no name")
        name, value = name.lower(), value.strip(" \t")
        if name in headers:
            if name == "content-length" and headers[name] == value:
                continue
            value = f"{headers[name]}, {value}"
        headers[name] = value
    if version == "HTTP/1.0":  # what it means, if it says nothing else
        headers["connection"] = "close"
    return int(status), headers


def _malformed(why: str) -> NoAnswerError:
    return NoAnswerError(f"the answer cannot be read: {why}", "BadStatusLine")
