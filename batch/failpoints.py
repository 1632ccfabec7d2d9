"""Switch: what only tests turn on: a death at a chosen point, and bugs that the checks must catch.

LOGSTORE_TEST_CRASH=compact:3         the process that reaches this point is killed
LOGSTORE_TEST_MARK=<path>             but only the first one to get there: it leaves this file behind
LOGSTORE_TEST_BUG=drop-tombstones     the fold does its work wrongly
"""

import os
import signal


def crash(point: str) -> None:
    """Kill this process (SIGKILL) when it is told to die at `point`, and nobody has before it."""
    if point in os.environ.get("LOGSTORE_TEST_CRASH", "").split(",") and _first(
        os.environ.get("LOGSTORE_TEST_MARK"), point
    ):
        os.kill(os.getpid(), signal.SIGKILL)


def planted(bug: str) -> bool:
    """True when the work has to be done with this bug."""
    return os.environ.get("LOGSTORE_TEST_BUG") == bug


def _first(folder: str | None, point: str) -> bool:
    if folder is None:
        return True
    try:
        os.close(os.open(os.path.join(folder, point), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
