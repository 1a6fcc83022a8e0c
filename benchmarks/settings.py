"""The smallest Django site that a storage in each phase can live in. The phase is a database row, as on a real one."""

import atexit
import os
import shutil
import tempfile

FOLDER = tempfile.mkdtemp(prefix="dualstorage-bench-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

SECRET_KEY = "benchmarks"
USE_TZ = True
INSTALLED_APPS = ["django_dualstorage"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.path.join(FOLDER, "db.sqlite3")}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING = {"version": 1, "loggers": {"django_dualstorage": {"level": "CRITICAL"}}}
