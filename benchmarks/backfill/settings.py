"""A small site with a folder of media files and a bucket. Which ones, the environment says."""

import os

SECRET_KEY = "benchmarks"
USE_TZ = True
INSTALLED_APPS = ["django_dualstorage"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BENCH_DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
MEDIA_ROOT = os.environ["BENCH_MEDIA"]
MEDIA_URL = "/media/"
STORAGES = {
    "default": {"BACKEND": os.environ.get("BENCH_BACKEND", "django_dualstorage.storage.DualWriteStorage")},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
# The keys are in the environment, where botocore finds them.
AWS_STORAGE_BUCKET_NAME = os.environ["BENCH_BUCKET"]
AWS_S3_ENDPOINT_URL = os.environ["BENCH_ENDPOINT"]
AWS_S3_REGION_NAME = "us-east-1"
AWS_S3_SIGNATURE_VERSION = "s3v4"
AWS_S3_ADDRESSING_STYLE = "path"
AWS_S3_OBJECT_PARAMETERS = {"CacheControl": "max-age=86400"}
AWS_S3_FILE_OVERWRITE = False
DUALSTORAGE_PROVIDER = "seaweedfs"
