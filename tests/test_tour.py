"""The tours tell the way that a write and a snapshot really take: real processes are followed, call by call."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from support_serve import Reader
from support_tour import DOCS, side_rooms, way_modules, ways_in
from support_trace import CallTrace
from support_wait import until
from support_worker import WorkerProcess, make_table

from logstore import Store
from logstore.log.tables import registry  # noqa: F401 - imported before calls are followed

CORRIDOR, ACCURATE_PATH = ((DOCS / f"{name}.md").read_text() for name in ("corridor", "accurate_path"))
THREADS = {"lane": "lane", "adopter": "adopter", "digest-client": "worker's end of the digester"}  # of the worker
PROCESSES = {  # by what they run; a later one counts
    "digester": "streaming.digest",
    "executor": "batch.tasks",
    "driver": "batch.jobs",
}
MOST_FILES = {CORRIDOR: 21, ACCURATE_PATH: 27}


class Walk:
    """The calls of one put and its get, of one plain request, and of one compact until its snapshot is read."""

    def __init__(self, bootstrap, directory):
        self.trace = CallTrace(directory / "trace")
        with self.trace.following():
            self.table = make_table(bootstrap, 1)
            self.reader = Reader(directory / "node")
            self.worker = WorkerProcess(bootstrap, directory / "node", node="node-a", url=self.reader.url)
            self.worker.start()
            try:
                self._walk(bootstrap, directory / "node")
            finally:
                self.worker.kill()
                self.reader.close()
                print(self.worker.log())

    def _walk(self, bootstrap, data_dir):
        self.pids = {os.getpid(): "client", self.worker.process.pid: "worker", self.reader.process.pid: "reader"}
        self.worker.watch.state(self.table, 0, "live")
        row = f"/v1/tables/{self.table.name}/rows/a"
        until("it answers 404", lambda: self.reader.get(row).status_code == 404)
        with self.trace.round() as self.put, Store(bootstrap, self.reader.url) as store:
            self.trace.until(lambda call: call.of("logstore.log.read.tail.Tail.take"))  # so the lane waits for records
            assert self._got_before_it_is_applied(store) == b"1"
            self.trace.until(lambda call: call.of("logstore.serve.state.waiters.Waiters.reached"))  # the feed has come
        with self.trace.round() as self.plain:
            assert self.reader.raw(f"GET {row} HTTP/1.1\r\nhost: reader\r\n\r\n".encode()).endswith(b"1")
        with self.trace.round() as self.compact:
            compact(bootstrap, data_dir, self.table.name)
            until(
                "the row comes from the snapshot", lambda: self.reader.get(row).headers.get("ls-source") == "snapshot"
            )

    def _got_before_it_is_applied(self, store):
        """The value of a put that the worker hears of only when a read waits for it: such a read goes the whole way."""
        os.kill(self.worker.process.pid, signal.SIGSTOP)
        try:
            position = store.put(self.table.name, "a", "1")
            with ThreadPoolExecutor(1) as pool:
                asked = pool.submit(store.get, self.table.name, "a", after=position, deadline_ms=30_000)
                self.trace.until(lambda call: call.of("logstore.serve.state.waiters.Waiters.wait"))
                os.kill(self.worker.process.pid, signal.SIGCONT)
                return asked.result(60).value
        finally:
            os.kill(self.worker.process.pid, signal.SIGCONT)

    def by(self, who, calls):
        """The calls of those who walk a way, in the order of time."""
        found = {}
        for name, package in PROCESSES.items():
            found |= dict.fromkeys((call.pid for call in calls if call.of(package)), name)
        processes = found | self.pids
        process = "reader" if who.startswith("reader") else who
        return [call for call in calls if _walker(processes.get(call.pid), call.thread) == process]


def compact(bootstrap, data_dir, table):
    """`logstore batch compact` in a process of its own."""
    argv = [sys.executable, "-m", "logstore.cli.main", "batch", "compact", table, "--wait", "120"]
    more = ["--bootstrap", bootstrap, "--data-dir", str(data_dir)]
    done = subprocess.run([*argv, *more], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def _walker(process, thread):
    return THREADS.get(thread, "worker") if process == "worker" else process


@pytest.fixture(scope="module")
def walk(kafka, tmp_path_factory):
    return Walk(kafka.bootstrap, tmp_path_factory.mktemp("tour"))


def assert_walked(way, calls):
    """Each name of the way is called, and behind the one before it."""
    rest = iter(calls)
    for name in way:
        assert any(call.of(name) for call in rest), f"{name} is not called here; the calls: {_told(calls)}"


def _told(calls):
    return " ".join(dict.fromkeys(f"{call.module}.{call.function}" for call in calls))


@pytest.mark.parametrize("who", ways_in(CORRIDOR))
def test_a_put_and_its_get_take_the_way_that_the_corridor_tells(walk: Walk, who):
    calls = walk.plain if who == "reader's plain request" else walk.put
    assert_walked(ways_in(CORRIDOR)[who], walk.by(who, calls))


@pytest.mark.parametrize("who", ways_in(ACCURATE_PATH))
def test_a_compact_takes_the_way_that_the_accurate_path_tells(walk: Walk, who):
    assert_walked(ways_in(ACCURATE_PATH)[who], walk.by(who, walk.compact))


def test_every_module_that_a_put_and_its_get_enter_is_named(walk: Walk):
    entered = {call.module for call in walk.put + walk.plain}
    assert entered - way_modules(CORRIDOR) - side_rooms(CORRIDOR) == set()


def test_every_module_that_a_compact_enters_is_named(walk: Walk):
    named = {room for page in (CORRIDOR, ACCURATE_PATH) for room in way_modules(page) | side_rooms(page)}
    entered = {call.module for call in walk.compact} - {"logstore"}  # the package itself hands out names
    assert entered - named == set()


@pytest.mark.parametrize("page", MOST_FILES, ids=["corridor", "accurate path"])
def test_a_newcomer_opens_few_files(page):
    assert len(way_modules(page)) == MOST_FILES[page]
    assert f"{MOST_FILES[page]} files" in page.replace("\n", " ")
    assert way_modules(page) & side_rooms(page) == set()
