"""A forked child that does one thing, and says what came of it."""

import os
import signal
import threading
import traceback

CHILD_S = 60


def in_child(function, *, leave=os._exit):
    """Run `function` in a forked child; returns what it returned (a text), and fails when it does not end by itself."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            said = str(function())
        except BaseException:  # shown by the parent
            said = traceback.format_exc()
        with os.fdopen(writing, "w") as out:
            out.write(said)
        leave(0)
    os.close(writing)
    overdue = threading.Timer(CHILD_S, os.kill, (pid, signal.SIGKILL))
    overdue.start()
    with os.fdopen(reading) as said_there:
        said = said_there.read()
    _, status = os.waitpid(pid, 0)
    overdue.cancel()
    assert status == 0, f"the child did not end by itself ({status}): {said}"
    return said
