"""Sphinx."""

from __future__ import annotations

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent / "django_dualstorage" / "__init__.py"
(_VERSION,) = re.findall(r'__version__ = "(.+)"', _PACKAGE.read_text())

project = "django-dualstorage"
author = "The django-dualstorage developers"
copyright = "2026, the django-dualstorage developers"  # noqa: A001  Sphinx's name
release = _VERSION
version = release

exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"django-dualstorage {release}"
highlight_language = "none"
# "--watch" is an option, not an en dash.
smartquotes = False
nitpicky = True
