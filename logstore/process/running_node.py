"""The node that runs on a data directory of this machine, as it has recorded itself."""

import fcntl
import os
from pathlib import Path
from typing import Any

import orjson


def running_node(lock_file: Path, run_file: Path) -> dict[str, Any] | None:
    """What the node that holds the lock recorded; None when none runs, or it is only starting."""
    try:
        fd = os.open(lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _is_free(fd):
            return None
        found: dict[str, Any] = orjson.loads(run_file.read_bytes())
        return found
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)


def running_on(data_dir: Path) -> dict[str, Any] | None:
    """The same for a node's data directory."""
    return running_node(data_dir / "node.lock", data_dir / "run" / "node.json")


def _is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
