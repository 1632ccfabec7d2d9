"""Processes of the product that are forked from one which has imported their module: imports are most of a start.

The forked process is the module run as `python -m` runs it, with arguments, environment, output, current folder and
limit of descriptors of its own, and it ends with the one that it was forked from, which ends with the tests.
"""

import array
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_REQUEST = 1 << 17  # bytes; an environment and a few arguments


class Forked:
    """A process as `subprocess.Popen` shows one: `pid`, `poll`, `wait`, `send_signal`."""

    def __init__(
        self,
        module: str,
        arguments: list[str],
        *,
        output: int = 1,
        errors: int = 2,
        environ: Mapping[str, str] | None = None,
        of: "Preloaded | None" = None,
    ) -> None:
        """`of`: the process to fork it from; default: the one that the tests of this process share."""
        said, says = os.pipe()
        self._said = said
        try:
            request = json.dumps(
                [arguments, os.environ | dict(environ or {}), os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE)]
            ).encode()
            socket.send_fds((of or _preloaded(module)).control, [request], [says, output, errors])
        finally:
            os.close(says)
        self.pid = self._next(60.0)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit status, minus the number of the signal that ended it; None while it runs."""
        if self.returncode is None and select.select([self._said], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            self.returncode = self._next(timeout)
            os.close(self._said)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _next(self, timeout: float | None) -> int:
        """What is said next: the process id, then the status."""
        if not select.select([self._said], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
        found = array.array("i", os.read(self._said, 4))
        assert found, "the process that forks has ended"
        return found[0]


Process = Forked | subprocess.Popen[bytes]


def start(
    module: str, arguments: list[str], *, output: int = 1, errors: int = 2, environ: Mapping[str, str] | None = None
) -> Process:
    """Start `python -m module` with its arguments; `output` and `errors`: file descriptors that it writes to.

    `environ` goes over that of the tests. With a PYTHONPATH of a test's own it is started the long way, as only that
    reads it.
    """
    whole = os.environ | dict(environ or {})
    if whole.get("PYTHONPATH") == _PYTHONPATH:
        return Forked(module, arguments, output=output, errors=errors, environ=environ)
    return subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=output, stderr=errors, env=whole)


_PYTHONPATH = os.environ.get("PYTHONPATH")


class Preloaded:
    """The process that has imported a module and forks on demand."""

    def __init__(self, module: str) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, module, str(os.getpid())], stdin=theirs, start_new_session=True
            )

    def close(self) -> None:
        """End it, and with it all that it forked; this process has then waited for what they used."""
        self.control.close()
        self._process.wait(30)


@functools.cache
def _preloaded(module: str) -> Preloaded:
    _ALL.append(one := Preloaded(module))
    return one


_ALL: list[Preloaded] = []


def close_all() -> None:
    """End every process that forks."""
    while _ALL:
        _ALL.pop().close()
    _preloaded.cache_clear()


def serve(module: str) -> None:
    """Fork a process per request, until the tests hang up; a forked one returns from here as the program."""
    importlib.import_module(f"{module}.__main__")
    gc.collect()
    gc.freeze()  # what is imported is not looked at, and so not copied, by the collectors of what is forked from here
    running: dict[int, tuple[int, int]] = {}  # descriptor of the process -> its id, where its status is told
    while True:
        for ready in select.select([0, *running], [], [])[0]:
            if ready:
                _tell(ready, *running.pop(ready))
                continue
            with socket.socket(fileno=os.dup(0)) as control:
                request, descriptors, *_ = socket.recv_fds(control, _REQUEST, 3)
            if not request:
                _end(running)
                return None
            says = descriptors[0]
            pid = os.fork()
            if pid == 0:
                return _become(module, json.loads(request), *descriptors[1:])
            os.write(says, array.array("i", [pid]))
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            running[os.pidfd_open(pid)] = pid, says


def _tell(descriptor: int, pid: int, says: int) -> None:
    os.close(descriptor)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # nobody asks any more
        os.write(says, array.array("i", [status]))
    os.close(says)


def _end(running: dict[int, tuple[int, int]]) -> None:
    for descriptor, (pid, says) in running.items():
        os.kill(pid, signal.SIGKILL)
        _tell(descriptor, pid, says)


def _become(module: str, request: Any, output: int, errors: int) -> None:
    arguments, environ, folder, limit = request
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [str(Path(sys.modules[module].__file__ or "").with_name("__main__.py")), *arguments]
    del sys.modules[f"{module}.__main__"]  # imported for what it imports; now it runs
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)
    serve(sys.argv[1])
