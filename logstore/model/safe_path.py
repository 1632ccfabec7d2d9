"""Safe paths: names that come from a log or a file are joined to a folder here, and nowhere else.

A name is one step down: never empty, `.`, `..`, absolute, or of several steps. So what is joined lies below the folder
it was joined to, whoever wrote the name.
"""

from pathlib import Path

from logstore.model.errors import Corrupted

_MAX_NAME_BYTES = 255  # of a file name on every filesystem in use
_SURELY_SHORT = _MAX_NAME_BYTES // 4  # characters, of 4 bytes at most


def below(root: Path, *names: str) -> Path:
    """The path `root/name/name...`; raises Corrupted unless every name is one step down."""
    return root.joinpath(*map(one_step, names))


def relative(path: str) -> str:
    """Return `path`, steps joined by "/"; raises Corrupted unless every one of them leads down."""
    for name in path.split("/"):
        one_step(name)
    return path


def one_step(name: str) -> str:
    """Return `name`; raises Corrupted unless it names something directly in a folder."""
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or "/" in name
        or "\\" in name
        or "\0" in name
        or (len(name) > _SURELY_SHORT and len(name.encode("utf-8", "replace")) > _MAX_NAME_BYTES)
    ):
        raise Corrupted(f"not the name of a file or folder: {name!r:.120}; nothing is made or removed under it")
    return name
