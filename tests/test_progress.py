"""What counts as progress: of a process that has not answered yet, and of work that says how far it is."""

import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pytest
from support_wait import until

from logstore.process import progress as progress_of
from logstore.process.progress import Patience, Progress

PATIENCE_S = 3.0  # a twentieth of it is work, which a machine whose cores are all taken must let a process do


@contextmanager
def running(code, *arguments):
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"begun\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_that_does_nothing_hangs_after_the_patience_and_not_before():
    with running("import time; print('begun', flush=True); time.sleep(600)") as process:
        progress = Progress(process.pid, PATIENCE_S)
        assert not progress.hangs()
        until("it hangs", progress.hangs)


@pytest.mark.slow
def test_a_process_that_works_never_hangs_and_hangs_once_it_stops_working(monkeypatch):
    monkeypatch.setattr(progress_of, "SHARE", 0.01)  # on a machine that others have it may get less than a twentieth
    works = "import time; print('begun', flush=True)\nwhile time.process_time() < 2.4: pass\ntime.sleep(600)"
    with running(works) as process:
        progress = Progress(process.pid, PATIENCE_S / 2)
        cpu_s = _cpu_s(process.pid)
        until("it hangs", progress.hangs)
        assert _cpu_s(process.pid) - cpu_s > 1.7  # it was waited for all that time


def test_a_process_whose_log_grows_does_not_hang(tmp_path):
    log = tmp_path / "log"
    with running("import time; print('begun', flush=True); time.sleep(600)") as process:
        silent, logging = Progress(process.pid, PATIENCE_S), Progress(process.pid, PATIENCE_S, log)
        log.write_text("loaded a partition\n")
        until("it hangs by its work alone", silent.hangs)
        assert not logging.hangs()
        seen_s = time.monotonic()
        until("it hangs with a log that has not grown since", logging.hangs)
        assert time.monotonic() - seen_s > PATIENCE_S * 0.9


def test_a_process_that_is_gone_does_not_hang():
    with running("print('begun', flush=True)") as process:
        progress = Progress(process.pid, 0.0)
        process.wait()
        assert not progress.hangs()


def _cpu_s(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def test_patience_begins_again_with_every_step_further_and_is_over_without_one():
    now = [0.0]
    patience = Patience(60.0, lambda: now[0])
    for step in range(20):
        now[0] += 50
        assert not patience.is_over(), "twenty steps of 50 s each are no hang"
        patience.saw({"fetched": step, "applied": 7})
    now[0] += 61
    assert patience.is_over()


def test_work_that_fails_and_begins_again_is_no_step_further():
    now = [0.0]
    patience = Patience(60.0, lambda: now[0])
    patience.saw({"fetched": 9})
    for at in (0, 5, 9, 0, 9):
        now[0] += 15
        patience.saw({"fetched": at})
    assert patience.is_over()
    patience.saw({"fetched": 10})
    assert not patience.is_over()
    patience.saw({})
    now[0] += 61
    assert patience.is_over()
