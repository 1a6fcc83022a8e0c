"""moto's S3 in a thread: starts in no time and knows more of the API than SeaweedFS, but believes every signature."""

from __future__ import annotations

import logging
import os
import secrets
from types import TracebackType
from typing import Any, final

from moto.server import ThreadedMotoServer

from .endpoint import new_bucket_name, s3_client

HOST = "127.0.0.1"


@final
class MotoServer:
    """A mocked S3 on a free port of the loopback.

    moto keeps its objects per process, so all of these servers show the same buckets: use fresh names.
    """

    def __init__(self) -> None:
        self.access_key = f"AK{secrets.token_hex(9).upper()}"
        self.secret_key = secrets.token_urlsafe(30)
        self._server: ThreadedMotoServer | None = None
        self._port = 0
        self._owner = 0

    def __enter__(self) -> MotoServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Where the S3 API answers."""
        return f"http://{HOST}:{self.port}"

    @property
    def port(self) -> int:
        """The port of the S3 API."""
        if not self._port:
            raise RuntimeError("the server has not been started")
        return self._port

    def start(self) -> None:
        """Start; it answers as soon as this returns."""
        if self._server is not None:
            return
        # Werkzeug writes a line per request to stderr, which drowns what a failing test has to say.
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address=HOST, port=0, verbose=False)
        self._server.start()
        self._owner = os.getpid()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Stop; takes up to half a second, since Werkzeug looks only that often."""
        server, self._server = self._server, None
        # A forked child has the object but not its thread, for which it would wait in vain.
        if server is not None and self._owner == os.getpid():
            server.stop()

    def create_bucket(self, name: str | None = None) -> str:
        """Make a bucket (with a fresh name unless one is given) and return its name."""
        name = name or new_bucket_name()
        self.client().create_bucket(Bucket=name)
        return name

    def client(self, **options: Any) -> Any:
        """A boto3 client; ``endpoint_url`` sends it through a proxy, the rest is as in `s3_client`."""
        options.setdefault("endpoint_url", self.endpoint_url)
        return s3_client(access_key=self.access_key, secret_key=self.secret_key, **options)
