"""Sphinx."""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent / "django_dualstorage" / "__init__.py"
_VERSION = re.search(r'__version__ = "(.+)"', _PACKAGE.read_text())
assert _VERSION is not None

project = "django-dualstorage"
author = "The django-dualstorage developers"
copyright = "2026, the django-dualstorage developers"  # noqa: A001  Sphinx's name
release = _VERSION[1]
version = release

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"django-dualstorage {release}"
highlight_language = "none"
# "--watch" is an option, not an en dash.
smartquotes = False
nitpicky = True
