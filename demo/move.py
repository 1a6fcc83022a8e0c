"""The move itself, step by step as docs/phases.rst has it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from demo.compare import Comparison, compare
from demo.console import Console
from demo.files import Filled, fill, register
from demo.server import DemoError, Site
from demo.traffic import Traffic, Visitor, failures, told, visitors
from tests.support.seaweed import SeaweedServer

_VISITORS = 4
_SET_PHASE = (
    "from django_dualstorage.core.phases import Phase; from django_dualstorage.records import set_phase; "
    "set_phase('default', Phase('{}'))"
)


@dataclass
class Move:
    """One run, and what it has found."""

    console: Console
    server: SeaweedServer
    bucket: str
    site: Site
    people: list[Visitor] = field(default_factory=list)
    rows: list[tuple[str, str]] = field(default_factory=list)

    def run(self) -> None:
        """All of it. Raises DemoError if the two sides are not equal at the end, or anybody saw an error."""
        self.open_the_site()
        self.backfill()
        self.equal("after the backfill")
        self.read_from_s3()
        self.lose_s3()
        self.repair()
        self.equal("after the outage")
        self.rows.append(("errors seen by visitors", "none"))

    def open_the_site(self) -> None:
        """A site as it is before the move, and two processes of it in ``mirror``."""
        self.console.step("A site with files on its disk, written by nobody for this demo")
        self.site.manage("migrate", "--verbosity=0", "--skip-checks")
        filled: Filled = fill(self.site.media_root)
        ids = register(self.site.database, list(filled.digests))
        self.phase("mirror")
        self.site.start()
        self.people = visitors(self.site, ids, filled.digests, _VISITORS)
        files = f"{len(filled.digests):,} files, {filled.size / 1e6:.1f} MB"
        self.console.say(f"{files}: {filled.kinds}")
        self.console.done("two server processes in phase mirror, the one in which a rolling deployment starts")
        self.rows.append(("at the beginning", files))

    def backfill(self) -> None:
        """Copy everything while people use the site, then what they touched meanwhile, until nothing is left."""
        self.console.step("manage.py dualstorage_backfill, while four visitors use the site")
        with Traffic(self.people) as traffic:
            report = self.site.manage_json("dualstorage_backfill")
            self._mind_visitors()
        self.console.say(f"meanwhile: {traffic.described()}; the longest took {traffic.slowest:.2f} s")
        self.console.done(f"{_counts(report)}; {report['bytes_moved'] / 1e6:.1f} MB sent")
        self.rows.append(("backfill", f"{report['files']:,} files in {report['seconds']:.1f} s, beside the traffic"))
        self.console.step("manage.py dualstorage_backfill again, for what was deleted or replaced under its hands")
        for _ in range(3):
            self.site.manage_json("dualstorage_repair")
            report = self.site.manage_json("dualstorage_backfill")
            if not report["problems"] and not report["s3_only"]:
                break
        else:
            raise DemoError(f"the backfill does not come to an end: {report}")
        self.console.done(f"{_counts(report)}; every file is on S3")

    def equal(self, when: str) -> Comparison:
        """Compare both sides, byte by byte, without the package's help. Raises DemoError."""
        self.console.step("Disk and bucket compared from outside: SHA-256 of every file on both sides")
        found = compare(self.site.media_root, self.server.client(), self.bucket, told(self.people))
        if found.differences:
            shown = "\n".join(found.differences[:10])
            raise DemoError(f"{len(found.differences)} of {found.files} files are not equal:\n{shown}")
        self.console.done(f"{found.files:,} of {found.files:,} files equal, {found.size / 1e6:.1f} MB")
        self.rows.append((f"equal {when}", f"{found.files:,} of {found.files:,} files, {found.size / 1e6:.1f} MB"))
        return found

    def read_from_s3(self) -> None:
        """The next phase: reads come from S3, certified against the disk."""
        self.console.step("One step up to phase dual; no restart")
        self.phase("dual")
        self.site.wait_for("phase", "dual")
        self.site.wait_for("certified", True)
        with Traffic(self.people) as traffic:
            time.sleep(3)
        self._mind_visitors()
        s3, disk = self.site.count("read.s3"), self.site.count("read.local", "read.fallback")
        self.console.say(f"{traffic.described()}")
        self.console.done(f"{s3} reads from S3, {disk} from the disk; every one was what was saved last")
        self.rows.append(("reads in dual", f"{s3} from S3, {disk} from the disk"))
        if not s3:
            raise DemoError(f"nothing was read from S3: {self.site.status()}")

    def lose_s3(self) -> None:
        """Kill the S3 server under traffic."""
        self.console.step("S3 is killed (SIGKILL) while people go on")
        before = self.site.count("read.s3")
        with Traffic(self.people) as traffic:
            time.sleep(0.5)
            self.server.crash()
            time.sleep(5)
        self._mind_visitors()
        status = self.site.status()
        hints = max(one["hints"] for one in status)
        self.console.say(f"{traffic.described()}; the longest took {traffic.slowest:.2f} s")
        self.console.done(f"no errors; {hints} operations are noted and wait for S3")
        self.rows.append(("while S3 was dead", f"{traffic.done.total()} requests served, {hints} operations noted"))
        if not hints or self.site.count("read.s3") < before:
            raise DemoError(f"the outage left no trace: {status}")

    def repair(self) -> None:
        """S3 comes back."""
        self.console.step("S3 is back; manage.py dualstorage_repair")
        self.server.restart()
        # On a real site repair waits a quarter of an hour before it trusts a name whose request may still be under way.
        report: dict[str, Any] = {}
        for _ in range(20):
            report = self.site.manage_json("dualstorage_repair", DEMO_GRACE="0")
            if not report["pending_hints"] and not report["problems"]:
                break
            time.sleep(0.5)
        else:
            raise DemoError(f"repair does not come to an end: {report}")
        self.site.wait_for("s3_left_alone", False)
        self.console.done(f"{_counts(report)}")
        self.rows.append(("repair", f"{report['files']:,} names in {report['seconds']:.1f} s"))

    def phase(self, phase: str) -> None:
        """Set it for all processes."""
        self.site.manage("shell", "--command", _SET_PHASE.format(phase))

    def _mind_visitors(self) -> None:
        if wrong := failures(self.people):
            raise DemoError(f"{len(wrong)} requests failed, first: {wrong[0]}\n{self.site.log_tail()}")


def _counts(report: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in report["counts"].items()) or "nothing to do"
