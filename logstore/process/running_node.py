"""Running node: the one on a data directory of this machine, as it has recorded itself."""

from pathlib import Path
from typing import Any

from logstore.process.dir_lock import DirLock


def lock_of(data_dir: Path) -> DirLock:
    """The lock that a node holds on its data directory."""
    return DirLock(data_dir / "node.lock")


def record_of(data_dir: Path) -> Path:
    """The file where a node records its process ids and addresses while it runs."""
    return data_dir / "run" / "node.json"


def running_on(data_dir: Path) -> dict[str, Any] | None:
    """Record of the node that runs on a data directory; None when none runs, or it is only starting."""
    try:
        holder = lock_of(data_dir).holder()
    except OSError:
        return None
    if holder is None:
        return None
    import json  # noqa: PLC0415 - who gives a URL does without; orjson takes five times as long to load

    try:
        found: dict[str, Any] = json.loads(record_of(data_dir).read_bytes())
        return found
    except FileNotFoundError:
        return None
