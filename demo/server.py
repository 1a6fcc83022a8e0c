"""The site's processes, and its management commands, as they would run on a server."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from typing import Any

import urllib3

_WENT_WELL = re.compile(r'HTTP/1\.1" [23]\d\d ')


class DemoError(RuntimeError):
    """Something did not happen that should have; the message says what."""


class Site:
    """Several server processes over one MEDIA_ROOT and one database."""

    def __init__(self, folder: str, environment: dict[str, str], processes: int) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment, "DEMO_FOLDER": folder, "PYTHONUNBUFFERED": "1"}
        self._environment.pop("DJANGO_SETTINGS_MODULE", None)
        self._wanted = processes
        self._running: list[subprocess.Popen[bytes]] = []
        self._http = urllib3.PoolManager(retries=False, timeout=10)
        self.urls: list[str] = []

    @property
    def media_root(self) -> str:
        """Where its files are."""
        return os.path.join(self._folder, "media")

    @property
    def database(self) -> str:
        """The path of its database."""
        return os.path.join(self._folder, "db.sqlite3")

    def manage(self, *arguments: str, expect: tuple[int, ...] = (0,), **environment: str) -> str:
        """Run a management command in a process of its own; what it printed. Raises DemoError."""
        done = subprocess.run(
            [sys.executable, "-m", "demo.manage", *arguments],
            env={**self._environment, **environment},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            check=False,
        )
        if done.returncode not in expect:
            raise DemoError(
                f"manage.py {arguments[0]} ended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
            )
        return done.stdout

    def manage_json(self, command: str, **environment: str) -> dict[str, Any]:
        """The same for a command with ``--json``. Differences found (1) are not an error here."""
        found: dict[str, Any] = json.loads(self.manage(command, "--json", expect=(0, 1), **environment))
        return found

    def start(self) -> None:
        """Start the processes and wait until each answers."""
        for number in range(self._wanted):
            port = _free_port()
            log = open(os.path.join(self._folder, f"site-{number}.log"), "wb")  # noqa: SIM115  the child's
            with log:
                self._running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "demo.manage", "runserver", "--noreload", f"127.0.0.1:{port}"],
                        env={**self._environment, "DEMO_WATCH_STDIN": "1"},
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
            self.urls.append(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + 30
        for url, process in zip(self.urls, self._running, strict=True):
            while not self._answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise DemoError(f"the site did not start:\n{self.log_tail()}")
                time.sleep(0.05)

    def _answers(self, url: str) -> bool:
        try:
            return self._http.request("GET", f"{url}/status.json").status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def status(self) -> list[dict[str, Any]]:
        """The page of numbers of each process."""
        return [self._http.request("GET", f"{url}/status.json").json() for url in self.urls]

    def count(self, *counters: str) -> int:
        """The sum of counters whose names begin so, over all processes."""
        return sum(
            number
            for status in self.status()
            for name, number in status["counters"].items()
            if name.startswith(counters)
        )

    def wait_for(self, key: str, value: object, seconds: float = 20) -> None:
        """Wait until the numbers of every process say so. Raises DemoError."""
        deadline = time.monotonic() + seconds
        while any(status[key] != value for status in self.status()):
            if time.monotonic() > deadline:
                raise DemoError(f"not every process has {key} = {value} after {seconds:g} s: {self.status()}")
            time.sleep(0.1)

    def log_tail(self, size: int = 2000) -> str:
        """The end of what the processes wrote, without the requests that went well."""
        tails = []
        for number in range(len(self._running)):
            with contextlib.suppress(OSError), open(os.path.join(self._folder, f"site-{number}.log")) as log:
                tails.append("".join(line for line in log if not _WENT_WELL.search(line))[-size:])
        return "\n".join(tails)

    def stop(self) -> None:
        """End the processes."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._running.clear()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
