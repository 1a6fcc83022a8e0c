"""Django's command line, for the demo's site: ``python -m demo.manage``."""

import os
import sys
import threading

from django.core.management import execute_from_command_line


def _end_with_the_parent() -> None:
    """A killed demo tidies nothing up, but its end of this pipe closes."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    if os.environ.get("DEMO_WATCH_STDIN"):
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.site.settings")
    execute_from_command_line(sys.argv)
