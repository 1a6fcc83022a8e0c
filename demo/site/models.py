"""The documents."""

from __future__ import annotations

import os
from typing import ClassVar

from django.db import models
from django.urls import reverse


class Document(models.Model):
    """A file that somebody uploaded."""

    IMAGES = (".gif", ".ico", ".jpeg", ".jpg", ".png", ".svg", ".webp")
    TEXTS = (".css", ".csv", ".html", ".js", ".json", ".md", ".po", ".rst", ".scss", ".txt", ".xml")

    file = models.FileField(upload_to="uploads/%Y/%m/", max_length=255)
    added = models.DateTimeField(auto_now_add=True, db_index=True)

    objects: ClassVar[models.Manager[Document]] = models.Manager()

    class Meta:
        ordering = ("-added", "-id")

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        """The page about it."""
        return reverse("document", args=[self.pk])

    @property
    def name(self) -> str:
        """Without its folder."""
        return os.path.basename(self.file.name or "")

    @property
    def folder(self) -> str:
        """Where it lies."""
        return os.path.dirname(self.file.name or "")

    @property
    def ending(self) -> str:
        """The end of the name, in lower case, with its dot."""
        return os.path.splitext(self.name)[1].lower()

    @property
    def is_image(self) -> bool:
        """Whether a browser shows it as an image."""
        return self.ending in self.IMAGES

    @property
    def is_text(self) -> bool:
        """Whether it can be read as it is."""
        return self.ending in self.TEXTS
