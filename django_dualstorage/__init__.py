"""Move a Django site's media files from a local disk to S3, and back, while it serves traffic."""

__version__ = "0.1.0"
