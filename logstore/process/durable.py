"""Durable files: what survives a power cut once a call has returned."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file's content, whole or not at all, also when the power goes. Raises OSError."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    flush(part)
    part.replace(path)
    flush(path.parent)
