import os
import signal

import psutil
import pytest
from support_wait import until

from tests.support_dev import Dev, call


def test_dev_says_that_it_is_ready_in_one_line_of_json(dev):
    facts = dev.facts
    assert facts["ready"] is True
    assert facts["data_dir"] == str(dev.data)
    assert facts["http"].startswith("http://127.0.0.1:")
    kafka = dev.pids()["kafka"]  # by now: a test of another file may have killed the first one
    assert all(psutil.pid_exists(pid) for pid in (facts["pids"]["node"], kafka))
    assert (len(facts["pids"]["workers"]), len(facts["pids"]["readers"])) == (1, 2)
    export = f"export LOGSTORE_BOOTSTRAP={facts['bootstrap']} LOGSTORE_URL={facts['http']}"
    until("it has said what to type", lambda: export in dev.stderr)  # behind the line of JSON


@pytest.mark.slow
def test_a_killed_kafka_worker_or_reader_is_back_and_nothing_is_lost(dev, users):
    dev("put", users, "before", "1")
    for kind in ("readers", "workers", "kafka"):
        before = dev.pids()
        victim = before["kafka"] if kind == "kafka" else before[kind][0]
        os.kill(victim, signal.SIGKILL)
        until(
            f"{kind} are back",
            lambda kind=kind, before=before: dev.pids()[kind] not in (before[kind], None, []) and dev.pids()[kind],
        )
        until(
            "the log answers", lambda: call("table", "list", LOGSTORE_BOOTSTRAP=dev.facts["bootstrap"]).returncode == 0
        )
        token = dev.json("put", users, f"after-{kind}", "2")["token"]
        assert dev("get", users, f"after-{kind}", "--token", token, "--deadline-ms", "30000").stdout == b"2"
    until("every slot is served again", lambda: len(dev.json("status")["nodes"][0]["live"]) == 16)
    assert dev.pids()["bootstrap"] == dev.facts["bootstrap"]
    assert dev("get", users, "before").stdout == b"1"


def test_a_warm_start_is_quick_and_has_everything_and_a_killed_node_leaves_nothing(tmp_path):
    first = Dev(tmp_path / "data")
    try:
        first("table", "create", "kept")
        first("put", "kept", "k", "v")
    finally:
        first.end()
    assert first.process.returncode == 0

    second = Dev(tmp_path / "data")
    try:
        print(f"cold {first.ready_s:.1f} s, warm {second.ready_s:.1f} s")
        assert second.ready_s < max(30, 1.5 * first.ready_s)
        assert second.facts["bootstrap"] == first.facts["bootstrap"]
        assert second("get", "kept", "k").stdout == b"v"
        pids = second.facts["pids"]
        children = [psutil.Process(pid) for pid in (pids["kafka"], *pids["workers"], *pids["readers"])]
        second.process.kill()
        assert psutil.wait_procs(children, timeout=60)[1] == []
    finally:
        second.end()


def test_a_data_directory_in_use_is_refused(dev):
    done = call("dev", "--data-dir", str(dev.data), "--http", "127.0.0.1:0")
    assert done.returncode == 1
    assert f"already (process {dev.facts['pids']['node']})".encode() in done.stderr


def test_serving_beyond_this_machine_is_refused(tmp_path):
    done = call("dev", "--data-dir", str(tmp_path / "d"), "--http", "0.0.0.0:0")
    assert done.returncode == 1
    assert b"--insecure" in done.stderr
