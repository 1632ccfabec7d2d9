"""The `logstore` command."""
