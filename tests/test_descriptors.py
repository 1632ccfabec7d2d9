"""As many descriptors as the system allows: a worker with the usual 1,024 could follow some 340 partitions."""

import contextlib
import re
import resource
import time
from pathlib import Path

import psutil
from support_log import until
from support_worker import make_table, running_worker

from logstore.process import descriptors
from streaming.app import SESSION_S
from streaming.control.control_plane import Me
from streaming.control.watchdog import RunningClock
from streaming.worker import Config, Worker


@contextlib.contextmanager
def soft_limit(count):
    """This process, and what it starts meanwhile, may open so many files, unless more are asked for."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))
    try:
        yield before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def limits(pid):
    """Soft and hard limit of a process."""
    soft, hard = re.search(r"Max open files +(\d+) +(\d+)", Path(f"/proc/{pid}/limits").read_text()).groups()
    return int(soft), int(hard)


def test_the_soft_limit_becomes_the_hard_one():
    with soft_limit(256) as hard:
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


def test_a_refusal_is_said_and_changes_nothing(monkeypatch, caplog):
    def refuse(_kind, _limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    descriptors.raise_limit()
    assert "not allowed" in caplog.text


def helpers_of(pid):
    below = psutil.Process(pid).children(recursive=True)
    return [child.pid for child in below if "-m streaming.digest.digester" in command_of(child)]


def command_of(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return ""


def test_a_worker_and_its_helper_process_raise_it(kafka, tmp_path):
    table = make_table(kafka.bootstrap, 1)
    with contextlib.ExitStack() as stack:
        with soft_limit(256) as hard:
            worker = stack.enter_context(running_worker(kafka.bootstrap, tmp_path / "node"))
        worker.watch.state(table, 0, "live")
        (helper,) = until("its helper runs", lambda: helpers_of(worker.process.pid))
        until("both have raised it", lambda: {limits(pid) for pid in (worker.process.pid, helper)} == {(hard, hard)})


def test_a_worker_ends_when_its_feed_has(kafka, tmp_path):
    me = Me("n", 0, "http://n", "g-feed", "")
    worker = Worker(Config(kafka.bootstrap, tmp_path, me, "none", None, 1_024, None))
    clock = RunningClock(SESSION_S, time.monotonic())
    assert worker._trouble(clock) != "the feed failed"
    worker._feed.close()
    assert worker._trouble(clock) == "the feed failed"
