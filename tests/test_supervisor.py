import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from support_wait import until

from logstore.node import supervisor as supervising
from logstore.node.supervisor import Spec, Supervisor
from logstore.process.heartbeat import HOPELESS

BEATS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("bye"), sys.exit(0)))
print("hello", flush=True)
while True:
    os.write(int(sys.argv[1]), b".")
    time.sleep(0.02)
"""
BEATS_THEN_SILENT = """
import os, sys, time
os.write(int(sys.argv[1]), b".")
time.sleep(600)
"""
DIES = """
import sys
print("2026 WARNING this is loud", file=sys.stderr)
sys.exit("it is broken")
"""
IGNORES_SIGTERM = BEATS.replace('lambda *_: (print("bye"), sys.exit(0))', "signal.SIG_IGN")


def spec(name: str, code: str) -> Spec:
    return Spec(name, lambda fd: [sys.executable, "-c", code, str(fd)])


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, said: list[str]) -> Iterator[Callable[..., Supervisor]]:
    started = []

    def start(*specs: Spec, stall_s: float = 10.0, **more: float) -> Supervisor:
        started.append(Supervisor(specs, tmp_path / "logs", stall_s=stall_s, loud=said.append, **more))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.close()


def turn_until(supervisor: Supervisor, condition: Callable[[], bool], what: str) -> None:
    def turned() -> bool:
        if not condition():
            supervisor.step(0.05)
        return condition()

    until(what, turned, every_s=0)


def test_children_run_and_beat_and_their_output_is_kept(start, tmp_path):
    supervisor = start(spec("worker-0", BEATS), spec("reader-0", BEATS), spec("reader-1", BEATS))
    turn_until(supervisor, supervisor.sound, "everybody beats")
    assert (len(supervisor.pids("worker")), len(supervisor.pids("reader"))) == (1, 2)
    turn_until(supervisor, lambda: "hello" in (tmp_path / "logs" / "reader-1.log").read_text(), "output")


def test_a_killed_child_is_back_at_once_and_the_others_go_on(start, said):
    supervisor = start(spec("worker-0", BEATS), spec("reader-0", BEATS))
    turn_until(supervisor, supervisor.sound, "start")
    worker, reader = supervisor.pids("worker"), supervisor.pids("reader")
    os.kill(worker[0], signal.SIGKILL)
    turn_until(supervisor, lambda: supervisor.sound() and supervisor.pids("worker") != worker, "back")
    assert supervisor.pids("reader") == reader
    assert "worker-0 was ended by SIGKILL and is started again in 0.2 s" in said[0]


def test_a_child_that_beats_no_more_is_killed_and_started_again(start, said):
    supervisor = start(spec("worker-0", BEATS_THEN_SILENT), stall_s=0.5)
    turn_until(supervisor, supervisor.sound, "start")
    silent = supervisor.pids("worker")
    turn_until(supervisor, lambda: supervisor.sound() and supervisor.pids("worker") != silent, "another one")
    assert said[0] == "worker-0 has made no progress for 0.5 s and is killed"


def test_a_stopped_process_is_silent_too(start):
    supervisor = start(spec("worker-0", BEATS), stall_s=0.5)
    turn_until(supervisor, supervisor.sound, "start")
    (pid,) = supervisor.pids("worker")
    os.kill(pid, signal.SIGSTOP)
    turn_until(supervisor, lambda: supervisor.sound() and supervisor.pids("worker") != [pid], "another one")
    assert not psutil.pid_exists(pid)


def test_a_child_that_never_beats_is_killed_when_its_start_takes_too_long(start, said):
    supervisor = start(spec("worker-0", "import time; time.sleep(600)"), stall_s=0.2, start_s=0.5)
    turn_until(
        supervisor, lambda: any("did not get going, has done nothing for 0.5 s" in text for text in said), "the kill"
    )


@pytest.mark.slow
def test_a_child_that_never_beats_is_waited_for_as_long_as_it_works(start, said):
    works = (
        "import os, sys, time\nwhile time.process_time() < 4: pass\nos.write(int(sys.argv[1]), b'.'); time.sleep(600)"
    )
    supervisor = start(spec("worker-0", works), stall_s=0.2, start_s=3)
    turn_until(supervisor, lambda: supervisor.pids("worker"), "the start")
    (pid,) = supervisor.pids("worker")
    turn_until(supervisor, supervisor.sound, "its first sign")
    assert (supervisor.pids("worker"), said) == ([pid], [])


def test_a_supervisor_that_was_busy_does_not_take_its_children_for_silent(start, said):
    supervisor = start(spec("worker-0", BEATS), stall_s=0.4)
    turn_until(supervisor, supervisor.sound, "start")
    busy_until = time.monotonic() + 0.8
    while time.monotonic() < busy_until:  # not turning
        pass
    supervisor.step(0)
    assert said == []


def test_time_in_which_everything_was_stopped_is_nobodys_silence(start, said, monkeypatch):
    """A machine that was suspended, a stopped group of processes: who goes on with the supervisor is not killed."""
    supervisor = start(spec("worker-0", BEATS), stall_s=20)
    turn_until(supervisor, supervisor.sound, "it beats")
    (pid,) = supervisor.pids("worker")
    psutil.Process(pid).suspend()
    ahead_s = 100.0
    monkeypatch.setattr(supervising, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead_s))
    supervisor.step(0.05)
    supervisor.step(0.05)
    psutil.Process(pid).resume()
    supervisor.step(0.05)
    assert (supervisor.pids("worker"), said) == ([pid], [])
    psutil.Process(pid).suspend()
    for ahead_s in (109.0, 118.0, 127.0, 136.0):  # it looks every 9 s, and hears nothing  # noqa: B007 - the clock reads it
        supervisor.step(0.05)
    assert "made no progress for 20 s" in said[0]


def test_a_crash_loop_backs_off_and_says_the_last_words(start, said, tmp_path):
    supervisor = start(spec("worker-0", DIES))
    turn_until(supervisor, lambda: len([s for s in said if "started again" in s]) == 3, "three deaths")
    deaths = [text for text in said if "started again" in text]
    assert [text.split(" in ")[1].split(" s")[0] for text in deaths] == ["0.2", "0.4", "0.8"]
    assert deaths[0].endswith(": it is broken)")
    assert str(tmp_path / "logs" / "worker-0.log") in deaths[0]
    assert "[worker-0] 2026 WARNING this is loud" in said


def test_a_child_that_ends_as_hopeless_is_left_alone_and_its_last_word_is_kept(start, said):
    supervisor = start(
        spec("worker-0", f"print('the log is lost'); raise SystemExit({HOPELESS})"), spec("reader-0", BEATS)
    )
    turn_until(supervisor, lambda: supervisor.hopeless is not None, "it is found out")
    assert supervisor.hopeless == "the log is lost"
    turn_until(supervisor, lambda: supervisor.children[1].beat_s is not None, "the other goes on")
    assert supervisor.pids("worker") == []
    assert said == []


def test_a_program_that_cannot_be_started_says_so(start, said):
    supervisor = start(Spec("worker-0", lambda fd: ["/no/such/program", str(fd)]))
    turn_until(supervisor, lambda: bool(said), "its death")
    assert "ended with status 127" in said[0]
    assert "No such file or directory" in said[0]


def test_ending_is_in_order_and_waits(start, said):
    supervisor = start(spec("worker-0", BEATS), spec("reader-0", BEATS))
    turn_until(supervisor, supervisor.sound, "start")
    supervisor.end("worker", 10)
    assert supervisor.pids("worker") == []
    assert len(supervisor.pids("reader")) == 1
    supervisor.step(0.3)
    assert supervisor.pids("worker") == []
    assert said == []


@pytest.mark.parametrize("hurry", [False, True])
def test_who_does_not_end_is_killed_after_its_grace_or_in_a_hurry(start, said, hurry):
    supervisor = start(spec("worker-0", IGNORES_SIGTERM))
    turn_until(supervisor, supervisor.sound, "start")
    began_s = time.monotonic()
    supervisor.end("worker", 600 if hurry else 0.3, hurry=lambda: hurry)
    assert supervisor.pids("worker") == []
    assert time.monotonic() - began_s < 300
    assert "worker-0 did not end" in said[0]


def test_the_log_of_a_child_is_bounded(start, tmp_path, monkeypatch):
    monkeypatch.setattr("logstore.node.supervisor.LOG_BYTES", 10_000)
    noisy = "import os, sys\nfor i in range(20000): print(i, 'x' * 50)\n" + BEATS.partition("\n")[2]
    supervisor = start(spec("worker-0", noisy))
    turn_until(supervisor, supervisor.sound, "start")
    logs = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in logs] == ["worker-0.log", "worker-0.log.1"]
    assert all(path.stat().st_size <= 10_000 for path in logs)
    assert "hello" in logs[0].read_text()


def test_children_end_with_a_supervisor_that_is_killed(tmp_path):
    code = f"""
import sys
from pathlib import Path
from logstore.node import supervisor as supervising
from logstore.node.supervisor import Spec, Supervisor
child = {BEATS!r}
specs = [Spec("worker-0", lambda fd: [sys.executable, "-c", child, str(fd)])]
supervisor = Supervisor(specs, Path({str(tmp_path)!r}), stall_s=10)
while not supervisor.sound():
    supervisor.step(0.05)
print(*supervisor.pids("worker"), flush=True)
while True:
    supervisor.step(1)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait(90)
    process.stdout.close()
    assert psutil.wait_procs([child], timeout=60)[1] == []


def test_a_warning_of_a_child_reaches_the_log_of_the_node_with_its_fields(start, said, caplog):
    code = (
        "import os; from logstore.process import logs; logs.set_up_child('worker-0', os.environ);"
        "log = logs.get('streaming.x'); log.info('quiet', partition=1); log.warning('heard', partition=2);"
        "raise SystemExit(3)"
    )
    supervisor = start(spec("worker-0", code), environ={"LOGSTORE_LOG_FORMAT": "json", "LOGSTORE_LOG_LEVEL": "info"})
    turn_until(supervisor, lambda: any("started again" in text for text in said), "its death")
    heard = [record for record in caplog.records if record.name == "streaming.x"]
    assert {(record.getMessage(), record.levelname, vars(record)["partition"]) for record in heard} == {
        ("heard", "WARNING", 2)
    }
    assert ": heard)" in next(text for text in said if "started again" in text)
