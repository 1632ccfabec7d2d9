"""Private files: data, locks and logs of a store are for the user whose processes make them, and for nobody else.

Rows lie in them as they are, and whoever may open a lock file may hold its lock.
"""

import os
from pathlib import Path

_OTHERS = 0o077


def own_files_only() -> None:
    """Make this process, and the children it starts, create files and folders that no other user may open."""
    os.umask(_OTHERS)


def private_dir(path: Path) -> None:
    """Make the folder, or take its other users' rights away where it is this user's. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid == os.geteuid() and found.st_mode & _OTHERS:
        path.chmod(found.st_mode & ~_OTHERS & 0o7777)


def as_private_as(path: Path) -> None:
    """Make this process create private files where the folder at `path`, or what there is above it, is private.

    For commands that write into a folder which may be a node's own, or one that several users share. Raises OSError.
    """
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    found = there.stat()
    if found.st_uid == os.geteuid() and not found.st_mode & _OTHERS:
        own_files_only()
