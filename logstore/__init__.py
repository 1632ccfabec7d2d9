"""logstore: a key-value store whose database is the log."""

__version__ = "0.1.0"
