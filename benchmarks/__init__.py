"""What one call costs, beside django-storages and beside FileSystemStorage, in one run against one server."""
