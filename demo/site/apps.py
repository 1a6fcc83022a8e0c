"""The Django app."""

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """Its label is not the folder's name, which Python itself uses."""

    name = "demo.site"
    label = "library"
