"""Where: which storage a command or node uses."""

from pathlib import Path

from fsspec import available_protocols  # type: ignore[import-untyped]

from logstore.model.errors import UsageError


def storage_url(flag: str | None, definitions_storage: str | None, data_dir: Path) -> str:
    """The flag (or LOGSTORE_STORAGE), else what the definitions say, else a folder below `data_dir`; raises UsageError for no URL."""
    url = flag or definitions_storage or f"file://{data_dir.absolute()}/storage"
    scheme, found, rest = url.partition("://")
    if not found or not rest or scheme not in available_protocols() or (scheme == "file" and not rest.startswith("/")):
        raise UsageError(f"not a storage: {url[:120]!r}; give --storage file:///DIRECTORY or s3://BUCKET/PREFIX")
    return url
