"""A site on the move: real files, a real S3 server, real traffic, and both sides compared at the end."""
