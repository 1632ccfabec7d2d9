"""Child process that ends when its parent does, however the parent ends.

    parent --spawn--> python child.py <parent's pid> <signal> <argv...> --execv--> argv (the same process id)

Before it becomes `argv`, the child asks Linux to send it a signal at the parent's death (prctl(2), PR_SET_PDEATHSIG,
kept across execve), then looks whether the parent died before it asked. Nothing runs between fork and exec in the
parent's threads, and no process stays in between.

Linux means the parent *thread* that forked. `spawn` therefore forks from one thread that lives as long as the
interpreter; whoever starts `command(...)` in another way must do it from a thread that lives as long as the child
should.

This file is also run as a script, with nothing but the standard library in reach.
"""

import ctypes
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def command(argv: list[str], at_death: signal.Signals = signal.SIGKILL) -> list[str]:
    """Wrap `argv` in a command that ends with its parent.

    Started by this process, it receives the signal `at_death` when the starting thread or process ends.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(at_death)), *argv]


def python(module: str, *arguments: str) -> list[str]:
    """Command line of a Python child: our module, and never one of that name in the current folder."""
    return [sys.executable, "-P", "-m", module, *arguments]


def spawn(
    argv: list[str],
    *,
    at_death: signal.Signals = signal.SIGKILL,
    output: IO[bytes] | int | None = None,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `argv`, which ends with this process, in a session of its own (a Ctrl-C in the terminal is the parent's).

    Safe from any thread. `output` takes stdout and stderr; None inherits them. `env`: default
    `environment.for_python`. Raises OSError when Python cannot be started; an `argv` that cannot be executed shows as
    exit status 127.
    """
    from logstore.process import environment  # noqa: PLC0415 - a script here has the standard library alone

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command(argv, at_death),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env=environment.for_python() if env is None else env,
            pass_fds=pass_fds,
            start_new_session=True,
        )

    return _forker(os.getpid()).submit(start).result()


@functools.lru_cache(maxsize=1)
def _forker(pid: int) -> ThreadPoolExecutor:  # noqa: ARG001 - a forked process needs a thread of its own
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")


def main(arguments: list[str]) -> None:
    """Become `argv`, as the module docstring says. Arguments: parent's pid, signal number, argv."""
    parent, at_death, argv = int(arguments[0]), int(arguments[1]), arguments[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, at_death, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the kernel was asked
        sys.exit(1)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
