"""The loop that guides to moving a site's media files recommend: is it there? If not, save it. One after the other."""

from __future__ import annotations

import os
import sys

import django
from django.conf import settings
from django.core.files import File
from django.core.files.storage import default_storage


def main() -> int:
    """Walk, ask, save."""
    django.setup()
    moved = 0
    for folder, _, names in os.walk(settings.MEDIA_ROOT):
        for file_name in names:
            path = os.path.join(folder, file_name)
            name = os.path.relpath(path, settings.MEDIA_ROOT)
            if default_storage.exists(name):
                continue
            with open(path, "rb") as file:
                default_storage.save(name, File(file))
            moved += 1
    print(f"{moved} files moved")
    return 0


if __name__ == "__main__":
    sys.exit(main())
