"""What has to be known by every process of the site, whichever machine it runs on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from django.db import connections, models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_dualstorage.core.differences import Difference, Found, Side
from django_dualstorage.core.phases import DEFAULT_PHASE, LADDER

if TYPE_CHECKING:
    from typing_extensions import Self


class StorageState(models.Model):
    """Where the migration of one storage stands. Written by commands, read through :mod:`.records`."""

    alias = models.CharField(_("storage alias"), max_length=100, primary_key=True)
    phase = models.CharField(
        _("phase"), max_length=20, choices=[(phase.value, phase.value) for phase in LADDER], default=DEFAULT_PHASE.value
    )
    phase_changed_at = models.DateTimeField(_("phase changed at"), null=True, blank=True)
    certified_at = models.DateTimeField(
        _("certified complete at"),
        null=True,
        blank=True,
        help_text=_("When a backfill last found every file on both sides; empty if that is not known to hold."),
    )
    certified_place = models.TextField(
        _("certified place"),
        blank=True,
        default="",
        help_text=_("Where the S3 side was then: endpoint, bucket and prefix."),
    )
    volume_id = models.CharField(_("volume id"), max_length=64, blank=True, default="")

    class Meta:
        verbose_name = _("storage state")
        verbose_name_plural = _("storage states")

    def __str__(self) -> str:
        return f"{self.alias}: {self.phase}"


class ProcessReport(models.Model):
    """One process of the fleet, as it last reported: how a flip knows that everybody has followed."""

    alias = models.CharField(_("storage alias"), max_length=100)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    phase = models.CharField(_("phase"), max_length=20)
    volume_id = models.CharField(_("volume id"), max_length=64, blank=True, default="")
    last_seen = models.DateTimeField(_("last seen"))

    class Meta:
        verbose_name = _("process report")
        verbose_name_plural = _("process reports")
        constraints = (
            models.UniqueConstraint(fields=("alias", "host", "pid"), name="dualstorage_one_report_per_process"),
        )

    def __str__(self) -> str:
        return f"{self.host}:{self.pid} {self.phase}"


class RunQuerySet(models.QuerySet["Run"]):
    """Questions about runs."""

    def of(self, alias: str, kind: str | None = None) -> Self:
        """The runs on one storage, the last first."""
        found = self.filter(alias=alias).order_by("-id")
        return found if kind is None else found.filter(kind=kind)

    def alive(self) -> Self:
        """Those that have said so lately."""
        return self.filter(state=Run.State.RUNNING, heartbeat__gte=timezone.now() - Run.SILENCE)

    def lost(self) -> Self:
        """Those that never ended and have been silent since: killed, or cut off from the database."""
        return self.filter(state=Run.State.RUNNING, heartbeat__lt=timezone.now() - Run.SILENCE)


class Run(models.Model):
    """One run of a long command."""

    #: A run that has not said anything for so long is not alive any more.
    SILENCE = timedelta(minutes=5)

    class State(models.TextChoices):
        """Where it stands."""

        RUNNING = "running", _("running")
        FINISHED = "finished", _("finished")
        INTERRUPTED = "interrupted", _("interrupted")
        FAILED = "failed", _("failed")

    alias = models.CharField(_("storage alias"), max_length=100)
    kind = models.CharField(_("command"), max_length=20)
    parameters = models.JSONField(_("parameters"), default=dict)
    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.RUNNING)
    counts = models.JSONField(_("counts"), default=dict)
    bytes = models.BigIntegerField(_("bytes"), default=0)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    started = models.DateTimeField(_("started"))
    heartbeat = models.DateTimeField(_("last heard of"))
    finished = models.DateTimeField(_("ended"), null=True, blank=True)
    report = models.JSONField(_("report"), default=dict)

    objects = RunQuerySet.as_manager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        indexes = (models.Index(fields=("alias", "kind", "id"), name="dualstorage_run_page"),)

    def __str__(self) -> str:
        return f"{self.kind} of {self.alias}: {self.state}"

    def beat(self, counts: dict[str, int], size: int) -> None:
        """Say that it is alive, and how far it is. ``size`` in bytes."""
        self.counts, self.bytes, self.heartbeat = counts, size, timezone.now()
        self.save(update_fields=("counts", "bytes", "heartbeat"))

    def end(self, report: dict[str, Any], counts: dict[str, int], size: int, *, interrupted: bool = False) -> None:
        """Say that it came to its end, or was stopped. ``size`` in bytes."""
        self.counts, self.bytes = counts, size
        self._ended(Run.State.INTERRUPTED if interrupted else Run.State.FINISHED, report)

    def fail(self, error: BaseException) -> None:
        """Say that an error ended it, unless it has ended already."""
        if self.finished is None:
            stopped = isinstance(error, KeyboardInterrupt)
            state = Run.State.INTERRUPTED if stopped else Run.State.FAILED
            self._ended(state, {"error": str(error) or type(error).__name__})

    def _ended(self, state: Run.State, report: dict[str, Any]) -> None:
        self.state, self.report = state, report
        self.finished = self.heartbeat = timezone.now()
        self.save(update_fields=("state", "report", "counts", "bytes", "finished", "heartbeat"))


class DiscrepancyQuerySet(models.QuerySet["Discrepancy"]):
    """Questions about discrepancies."""

    def of(self, alias: str) -> Self:
        """Those of one storage."""
        return self.filter(alias=alias)

    def open(self) -> Self:
        """Those that were there when somebody last looked."""
        return self.filter(resolved_at=None)

    def page(self, after: int = 0, size: int = 100) -> Self:
        """The next ones along the primary key: costs the same for the last page as for the first."""
        return self.filter(id__gt=after).order_by("id")[:size]

    def note(self, run: Run, found: Iterable[Found], when: datetime) -> None:
        """Write down what a run has found: new ones, and that the ones known are still there or there again."""
        rows = [
            Discrepancy(
                run=run,
                alias=run.alias,
                name=one.name,
                digest=digest_of(one.name),
                kind=one.kind.value,
                side=one.side.value,
                detail=one.detail,
                first_seen=when,
                last_seen=when,
            )
            for one in found
        ]
        features = connections[self.db].features
        unique = ("alias", "digest", "kind") if features.supports_update_conflicts_with_target else None
        self.bulk_create(
            rows,
            batch_size=500,
            update_conflicts=True,
            update_fields=("run", "side", "detail", "last_seen", "resolved_at", "resolution"),
            unique_fields=unique,
        )

    def not_found_again(
        self,
        run: Run,
        kinds: Iterable[Difference],
        prefix: str,
        unjudged: Callable[[list[str]], set[str]] = lambda names: set(),
    ) -> None:
        """Close what earlier runs had found of these kinds below ``prefix`` and ``run``, which looked, did not.
        ``unjudged`` tells which of some names it could not look at; these stay open.
        """
        earlier = self.of(run.alias).open().exclude(run=run).filter(kind__in=[kind.value for kind in kinds])
        after = 0
        # The database's idea of a beginning may not tell upper from lower case, so it is asked for pages only.
        while page := list(earlier.page(after, 1000).values_list("id", "name")):
            after = page[-1][0]
            below = {number: name for number, name in page if name.startswith(prefix)}
            left_open = unjudged(list(below.values()))
            gone = [number for number, name in below.items() if name not in left_open]
            self.filter(id__in=gone).resolve(Discrepancy.Resolution.GONE)

    def fixed(self, run: Run, found: Iterable[Found]) -> None:
        """Close what ``run`` has mended."""
        for one in found:
            mine = self.filter(run=run, digest=digest_of(one.name), kind=one.kind.value)
            mine.resolve(Discrepancy.Resolution.FIXED)

    def resolve(self, resolution: Discrepancy.Resolution) -> int:
        """Close them all; returns how many there were."""
        return self.open().update(resolved_at=timezone.now(), resolution=resolution)


class Discrepancy(models.Model):
    """Something that is wrong with one name, from when it was first seen until it was seen to be gone.

    One row for a name and a kind, however many runs have met it; ``run`` is the last of them.
    """

    class Resolution(models.TextChoices):
        """What became of it."""

        NONE = "", _("open")
        GONE = "gone", _("a later run did not find it any more")
        FIXED = "fixed", _("mended by verify --fix")
        IGNORED = "ignored", _("set aside by a person")

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="discrepancies", verbose_name=_("last run"))
    alias = models.CharField(_("storage alias"), max_length=100)
    name = models.TextField(_("name"))
    #: Of the name, which is too long for an index on some databases.
    digest = models.CharField(max_length=32, editable=False)
    kind = models.CharField(_("kind"), max_length=20, choices=[(kind.value, kind.value) for kind in Difference])
    side = models.CharField(_("side"), max_length=10, choices=[(side.value, side.value) for side in Side])
    detail = models.TextField(_("detail"), blank=True, default="")
    first_seen = models.DateTimeField(_("first seen"))
    last_seen = models.DateTimeField(_("last seen"))
    resolved_at = models.DateTimeField(_("resolved"), null=True, blank=True)
    resolution = models.CharField(
        _("resolution"), max_length=10, choices=Resolution.choices, blank=True, default=Resolution.NONE
    )

    objects = DiscrepancyQuerySet.as_manager()

    class Meta:
        verbose_name = _("discrepancy")
        verbose_name_plural = _("discrepancies")
        constraints = (
            models.UniqueConstraint(fields=("alias", "digest", "kind"), name="dualstorage_one_row_per_discrepancy"),
        )
        indexes = (
            models.Index(fields=("run", "kind", "id"), name="dualstorage_disc_of_run"),
            models.Index(fields=("alias", "resolved_at", "kind", "id"), name="dualstorage_disc_open"),
        )

    def __str__(self) -> str:
        return f"{self.name}: {self.kind}"

    def resolve(self, resolution: Discrepancy.Resolution) -> None:
        """Close it."""
        self.resolved_at, self.resolution = timezone.now(), resolution
        self.save(update_fields=("resolved_at", "resolution"))


def digest_of(name: str) -> str:
    """What stands for a name in an index."""
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
