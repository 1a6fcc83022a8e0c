"""Django's command line, for the demo's site: ``python -m demo.manage``."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.site.settings")
    execute_from_command_line(sys.argv)
