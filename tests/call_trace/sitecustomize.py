"""Imported by every Python process that starts with this folder on PYTHONPATH: writes down which product functions run.

`support_trace.CallTrace` sets one byte of a shared file: 0 is silence, any other value a round. In a round, every
thread appends a line to its process's file for each call of a product function that is not the one it called before:
monotonic nanoseconds, thread, file, qualified name.
"""

import mmap
import os
import sys
import threading
import time

CO_OPTIMIZED = 1  # of functions; the bodies of modules and classes, which an import runs, do not have it


def follow(directory: str) -> None:
    """Have all threads of this process followed."""
    root = os.environ["LOGSTORE_CALL_TRACE_ROOT"] + os.sep
    packages = tuple(root + name + os.sep for name in ("logstore", "streaming", "batch"))
    with open(os.path.join(directory, "round"), "rb") as shared:
        current = mmap.mmap(shared.fileno(), 1, prot=mmap.PROT_READ)
    local = threading.local()

    def profile(frame, event, _argument):
        number = current[0]
        if not number or event != "call":
            return
        code = frame.f_code
        if not code.co_flags & CO_OPTIMIZED or not code.co_filename.startswith(packages):
            return
        now = number, os.getpid()
        if getattr(local, "now", None) != now:
            local.now, local.before, local.out = now, None, open_calls(*now)
        if code is not local.before:
            local.before = code
            thread = threading.current_thread().name
            line = f"{time.monotonic_ns()}\t{thread}\t{code.co_filename[len(root) :]}\t{code.co_qualname}\n"
            os.write(local.out, line.encode())

    def open_calls(number: int, pid: int) -> int:
        path = os.path.join(directory, f"{number}.{pid}.calls")
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    threading.setprofile(profile)
    sys.setprofile(profile)


if "LOGSTORE_CALL_TRACE" in os.environ:
    follow(os.environ["LOGSTORE_CALL_TRACE"])
