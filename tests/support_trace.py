"""Which functions of the product run, by process and thread and in order, in this process and in those it starts."""

import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
HOOK = Path(__file__).parent / "call_trace"


class Call(NamedTuple):
    """A call of a function by a thread."""

    at_ns: int
    pid: int
    thread: str
    module: str
    function: str  # qualified

    def of(self, name: str) -> bool:
        """True for `package.module`, `package.module.Class` and `package.module.function` alike."""
        return f"{self.module}.{self.function}.".startswith(f"{name}.")


class CallTrace:
    """A trace of this process and of the Python processes that it starts while `following`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory, self._mark = directory, directory / "round"
        self._mark.write_bytes(b"\0")
        self._rounds = 0

    @contextmanager
    def following(self) -> Iterator[None]:
        """Processes and threads that begin in this block are followed, and this thread."""
        added = {
            "LOGSTORE_CALL_TRACE": str(self._directory),
            "LOGSTORE_CALL_TRACE_ROOT": str(ROOT),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(HOOK), os.environ.get("PYTHONPATH")])),
        }
        before = {name: os.environ.get(name) for name in added}
        os.environ.update(added)
        _run_hook()
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]  # ends it; typeshed lacks None
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    @contextmanager
    def round(self) -> Iterator[list[Call]]:
        """What is called in this block; the list is filled at its end, in the order of time."""
        self._rounds += 1
        found: list[Call] = []
        self._set(self._rounds)
        try:
            yield found
        finally:
            self._set(0)
            found += sorted(self._read(self._rounds))

    def until(self, condition: Callable[[Call], bool], timeout_s: float = 30.0) -> None:
        """Wait until such a call has been made in this round."""
        deadline = time.monotonic() + timeout_s
        while not any(condition(call) for call in self._read(self._rounds)):
            assert time.monotonic() < deadline, f"not called within {timeout_s} s"
            time.sleep(0.01)

    def _set(self, value: int) -> None:
        with self._mark.open("r+b") as file:  # in place: it is mapped
            file.write(bytes([value]))

    def _read(self, number: int) -> Iterator[Call]:
        for path in self._directory.glob(f"{number}.*.calls"):
            pid = int(path.name.split(".")[1])
            for line in path.read_text().split("\n")[:-1]:  # the last one may be half written
                at_ns, thread, file, function = line.split("\t")
                module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                yield Call(int(at_ns), pid, thread, module, function)


def _run_hook() -> None:
    spec = importlib.util.spec_from_file_location("call_trace_hook", HOOK / "sitecustomize.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
