"""The site's settings. What the move needs is marked; the rest is any site's."""

import os

FOLDER = os.environ["DEMO_FOLDER"]

SECRET_KEY = "this site lives for a minute"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "demo.site.urls"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.messages", "demo.site", "django_dualstorage"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
                "demo.site.views.migration",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.path.join(FOLDER, "db.sqlite3"),
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode = WAL"},
    }
}
MEDIA_ROOT = os.path.join(FOLDER, "media")
MEDIA_URL = "/media/"

# -- the move: django-storages' settings, and the backend in place of FileSystemStorage ------------------------------
AWS_STORAGE_BUCKET_NAME = os.environ["DEMO_BUCKET"]
AWS_S3_ENDPOINT_URL = os.environ["DEMO_ENDPOINT"]
AWS_S3_REGION_NAME = "us-east-1"  # the keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment

STORAGES = {
    "default": {"BACKEND": "django_dualstorage.storage.DualWriteStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
DUALSTORAGE_PROVIDER = "seaweedfs"
# A demo is in a hurry; leave these out.
DUALSTORAGE_PHASE_TTL = 0.5
DUALSTORAGE_BREAKER_INTERVAL = 1.0
DUALSTORAGE_GRACE = float(os.environ.get("DEMO_GRACE", "900"))
