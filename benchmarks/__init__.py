"""What one call costs, beside django-storages and beside FileSystemStorage, in one run against one server."""

import os

# Here, since parts of the package read the settings when they are imported.
os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.settings"
