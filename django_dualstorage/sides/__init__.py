"""The two places a file can be."""
