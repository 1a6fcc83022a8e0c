"""What the files are moved to: a real server, and one that only answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.seaweed import SeaweedServer

_SOURCES = Path(__file__).with_name("null_s3")
_TICKS = os.sysconf("SC_CLK_TCK")


class UnavailableError(RuntimeError):
    """This machine cannot run the server; the message says what it lacks."""


@dataclass(frozen=True)
class Target:
    """A server that runs."""

    name: str
    endpoint_url: str
    access_key: str
    secret_key: str = field(repr=False)
    pid: int
    #: The certificate of the authority to trust, where it speaks TLS.
    authority: Path | None = None

    def cpu(self) -> float:
        """CPU seconds that it has taken so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def seaweedfs() -> Iterator[Target]:
    """SeaweedFS on the loopback, data in memory if there is room; it checks signatures and checksums."""
    with SeaweedServer() as server:
        if server.pid is None:
            raise UnavailableError("SeaweedFS has ended")
        yield Target("seaweedfs", server.endpoint_url, server.access_key, server.secret_key, server.pid)


@contextmanager
def null_s3(name: str, *, latency_ms: float = 0, tls: bool = False) -> Iterator[Target]:
    """The server that only answers, compiled for this run. Raises UnavailableError."""
    with tempfile.TemporaryDirectory(prefix="dualstorage-null-s3-") as folder:
        authority = Path(folder, "authority.pem") if tls else None
        program = compiled(Path(folder), tls=tls)
        command = [str(program), str(latency_ms), *([str(authority)] if authority else [])]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            if not port:
                raise UnavailableError(f"the null endpoint ended with {process.wait()}")
            scheme = "https" if tls else "http"
            yield Target(name, f"{scheme}://127.0.0.1:{port}", "NULL", "not checked", process.pid, authority)
        finally:
            process.kill()
            process.communicate()


def compiled(folder: Path, *, tls: bool) -> Path:
    """The program, made in ``folder``. Raises UnavailableError without a compiler or OpenSSL's headers."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UnavailableError("no C compiler (cc) on the PATH")
    program = folder / "null_s3"
    sources = sorted(map(str, _SOURCES.glob("*.c")))
    command = [compiler, "-O2", "-std=gnu11", *sources, "-o", str(program)]
    if tls:
        command += ["-DWITH_TLS", "-lssl", "-lcrypto"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        needs = ", which needs the headers of OpenSSL" if tls else ""
        raise UnavailableError(f"the null endpoint does not compile{needs}: {made.stderr.strip()[:500]}")
    return program


SERVERS: dict[str, Callable[[], AbstractContextManager[Target]]] = {
    "seaweedfs": seaweedfs,
    "null": lambda: null_s3("null"),
    "null-tls": lambda: null_s3("null-tls", tls=True),
    "null-20ms": lambda: null_s3("null-20ms", latency_ms=20),
}
