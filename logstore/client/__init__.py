"""The clients: synchronous and asynchronous writing and reading."""
