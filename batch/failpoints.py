"""Failpoints: numbered steps of a job at which a test has the process killed, to see what is left behind.

LOGSTORE_TEST_CRASH=compact:3,worker:2     the process that reaches one of these points is killed (SIGKILL)
LOGSTORE_TEST_CRASH_DIR=/tmp/...           and only when this folder holds a file `may-crash` with the text CONSENT

Both are needed, so that a variable that is left in an environment kills nothing: no command makes such a folder, tests
do. A folder, not the data directory, because executors have none. A point kills once per folder: the first process to
reach it leaves a file of the point's name there. A job that starts with a failpoint armed says so on stderr. Failpoints
end a process; they never change what it computes.
"""

import os
import signal
import sys
from pathlib import Path

CONSENT = "Processes that are given this folder may be killed at their failpoints.\n"


def armed() -> list[str]:
    """The points at which a process is to be killed; none unless the folder consents."""
    points = [point for point in os.environ.get("LOGSTORE_TEST_CRASH", "").split(",") if point]
    return points if points and _consents(os.environ.get("LOGSTORE_TEST_CRASH_DIR")) else []


def warn() -> None:
    """Say on stderr that failpoints are armed. Called where a job starts."""
    if points := armed():
        sys.stderr.write(
            f"WARNING: failpoints are armed: this job is killed at {', '.join(points)}; unset LOGSTORE_TEST_CRASH\n"
        )
        sys.stderr.flush()


def crash(point: str) -> None:
    """Kill this process when `point` is armed and no process has been killed there before."""
    if point in armed() and _first(Path(os.environ["LOGSTORE_TEST_CRASH_DIR"]), point):
        os.kill(os.getpid(), signal.SIGKILL)


def _consents(folder: str | None) -> bool:
    try:
        return folder is not None and Path(folder, "may-crash").read_text() == CONSENT
    except (OSError, UnicodeDecodeError):
        return False


def _first(folder: Path, point: str) -> bool:
    try:
        os.close(os.open(folder / point, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True
