"""Log levels: how much is logged, by all of the store and by single loggers: "info,streaming.lane=debug"."""

import re

from logstore.model.errors import UsageError

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}  # as Python's logging numbers them
OURS = ("logstore", "streaming", "batch")
_NAME = re.compile(r"[A-Za-z_][\w.]*")


def parse_levels(text: str) -> tuple[int, dict[str, int]]:
    """Level of our packages, and levels of loggers by name. Raises UsageError that says what can be written."""
    default, by_name = LEVELS["info"], dict[str, int]()
    for piece in text.split(","):
        name, equals, word = piece.strip().rpartition("=")
        level = LEVELS.get(word.lower())
        if level is None or (equals and not _NAME.fullmatch(name)):
            raise UsageError(
                f"not a log level: {piece.strip()[:80]!r}; write {', '.join(LEVELS)}, or LOGGER=LEVEL for one logger, "
                "such as streaming.lane=debug"
            )
        if equals:
            by_name[name] = level
        else:
            default = level
    return default, by_name
