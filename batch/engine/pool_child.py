"""Pool child: a process of the local engine, which runs one task after another until its driver is gone.

Argument: the number of the socket on which tasks come and results go (`multiprocessing.connection` frames them).
"""

import gc
import pickle
import sys
from multiprocessing.connection import Connection
from typing import Any

from batch.engine.local import Failed
from batch.engine.protocol import attempt
from batch.tasks import fold_group, segments  # noqa: F401 - loaded while the driver still plans

_LONGEST = 500  # of a reason, in characters


def main(number: int) -> None:
    """Serve tasks until the driver closes its end."""
    # Arrow looks for pandas at its first array and loads it where it is installed: half a second that no task needs
    sys.modules["pandas"] = None  # type: ignore[assignment]  # how Python is told that a module is not to be had
    gc.freeze()
    with Connection(number) as connection:
        while (packed := _next(connection)) is not None:
            connection.send_bytes(_packed(packed))


def _next(connection: "Connection[Any, Any]") -> bytes | None:
    try:
        return connection.recv_bytes()
    except EOFError:
        return None


def _packed(task: bytes) -> bytes:
    try:
        return pickle.dumps(attempt(*pickle.loads(task)))
    except Exception as error:  # a task may raise anything; the driver decides how often it is tried
        return pickle.dumps(Failed(f"{type(error).__name__}: {error}"[:_LONGEST]))


if __name__ == "__main__":
    main(int(sys.argv[1]))
