"""What has to be known by every process of the site, whichever machine it runs on."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_dualstorage.core.phases import DEFAULT_PHASE, LADDER


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
