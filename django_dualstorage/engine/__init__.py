"""Machinery that moves bytes: the S3 client behind a small interface, the breaker, the worker pool. No Django."""
