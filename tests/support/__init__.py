"""Real S3 servers, a wire that breaks on demand and processes that die on demand: what the tests stand on."""
