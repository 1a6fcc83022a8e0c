"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DualStorageConfig(AppConfig):
    """Loads the settings' defaults and registers the system checks."""

    name = "django_dualstorage"
    label = "dualstorage"
    verbose_name = _("Dual storage")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Called by Django once all apps are loaded."""
        from django_dualstorage import checks, conf  # noqa: F401
