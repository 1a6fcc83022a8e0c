"""An app with file fields of every kind, for the tests that ask which files the database knows."""
