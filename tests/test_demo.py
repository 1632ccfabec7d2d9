"""The flights demo, at reduced size on a real store, and the comparison it rests on."""

import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import orjson
import psutil
import pytest
from click.testing import CliRunner
from support_tiers import short_and_long
from support_wait import until

from examples.flights import __main__ as program
from examples.flights import check, source, wire
from examples.flights.report import Report
from logstore.client.read.row import Row
from logstore.model.errors import LogStoreError

SOURCE = {b"%04d" % number: b"value %d" % number for number in range(100)}
STAGES = {"scheduled": 0, "departed": 1, "arrived": 2, "cancelled": 1}


def rows(held: dict[bytes, bytes]) -> list[Row]:
    return [Row(key, value, 0, 0, "") for key, value in held.items()]


def test_a_store_that_holds_the_source_passes():
    verdict = check.compare(SOURCE, rows(SOURCE))
    assert (verdict.checked, verdict.wrong) == (100, 0)


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        ("different", SOURCE | {b"0042": b"value 43"}),
        ("different", SOURCE | {b"0042": b""}),
        ("missing", {key: value for key, value in SOURCE.items() if key != b"0042"}),
        ("missing", {key: value for key, value in SOURCE.items() if key != b"0099"}),
        ("extra", SOURCE | {b"0099x": b"value 99"}),
    ],
)
def test_one_wrong_row_is_found_and_named(kind, held):
    verdict = check.compare(SOURCE, rows(held))
    assert (verdict.wrong, getattr(verdict, kind)) == (1, 1)
    assert verdict.examples[0].startswith(kind)


def test_a_row_that_comes_twice_or_out_of_order_is_wrong():
    twice = rows(SOURCE)
    twice.insert(50, twice[50])
    assert check.compare(SOURCE, twice).wrong > 0
    swapped = rows(SOURCE)
    swapped[10], swapped[11] = swapped[11], swapped[10]
    assert check.compare(SOURCE, swapped).disordered == 1


def test_verdicts_of_ranges_add_up():
    wrong = check.compare(SOURCE, rows(SOURCE)[1:]) + check.compare(SOURCE, rows(SOURCE | {b"a": b""}))
    assert (wrong.checked, wrong.missing, wrong.extra, wrong.wrong) == (200, 1, 1, 2)


@short_and_long("flights", 30_000, 336_776)
def test_a_flight_goes_through_its_stages_in_order_and_its_key_is_its_own(flights):
    table = source._table(source._data_dir(), source.FLIGHTS)
    changes = source.flights(table.slice(0, flights))
    stage: dict[bytes, int] = {}
    for key, value in changes:
        following = STAGES[orjson.loads(value)["state"]]
        assert following == stage.get(key, -1) + 1, (key, value)
        stage[key] = following
    assert (len(stage), len(changes)) == (flights, {30_000: 89_454, 336_776: 1_001_615}[flights])
    assert table.num_rows == 336_776


def test_keys_of_every_table_are_unique():
    for stream in source.references():
        assert len(dict(stream.pairs)) == len(stream.pairs), stream.table


def answering(body: bytes, pause_s: float = 0.0) -> tuple[str, socket.socket]:
    """A server with one answer for every request, in two pieces."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with closing(connection):
            while connection.recv(65_536):
                time.sleep(pause_s)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:2])
                connection.sendall(body[2:])

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def test_point_reads_compare_every_answer():
    url, listener = answering(b"right")
    with listener:
        driven = wire.drive(
            url, wire.reads_of(url, "t", [(b"k", b"right"), (b"k", b"wrong")]), seconds=2.0, connections=1
        )
    assert len(driven.late_ms) > 10
    assert driven.wrong == len(driven.late_ms) // 2


def test_a_run_that_ends_before_the_next_read_is_asked_waits_for_nothing(monkeypatch):
    def waits(readable, *others):
        assert readable, "no read is on its way, and it waits for an answer"
        return select.select(readable, *others)

    monkeypatch.setattr(wire, "select", SimpleNamespace(select=waits))
    for looks in range(3, 40):  # the clock moves whenever it is looked at, so the end falls between any two looks
        clock = itertools.count()
        monkeypatch.setattr(wire, "time", SimpleNamespace(perf_counter=lambda clock=clock: next(clock) / 1000))
        url, listener = answering(b"right")
        with listener:
            driven = wire.drive(url, wire.reads_of(url, "t", [(b"k", b"right")]), seconds=looks / 1000, connections=1)
        assert driven.wrong == 0


def test_a_slow_answer_counts_for_the_reads_that_had_to_wait_for_it():
    url, listener = answering(b"right", pause_s=0.02)
    with listener:
        work = wire.reads_of(url, "t", [(b"k", b"right")])
        driven = wire.drive(url, work, seconds=0.3, connections=1, rate=100)
    assert len(driven.late_ms) == 30
    assert driven.late_ms[-1] > 200, "reads are due every 10 ms and take 20: the last one waits for all before it"


def test_a_connection_that_ends_in_the_middle_of_an_answer_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            connection, _ = listener.accept()
            with closing(connection):
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nri")

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(LogStoreError, match="middle"):
            wire.drive(url, wire.reads_of(url, "t", [(b"k", b"right")]), seconds=0.2, connections=1)


def test_the_demo_runs_end_to_end(tmp_path):
    file = tmp_path / "figures.json"
    with demo("--limit", "4000", "--json", str(file), "--data-dir", str(tmp_path / "data")) as running:
        output, errors = running.communicate(timeout=800)
    assert running.returncode == 0, output + errors
    figures = orjson.loads(file.read_bytes())
    assert figures["ok"] is True
    assert figures["mutations"] == 4_000
    assert figures["rows_checked"] == sum(figures["rows"].values()) > 30_000
    assert figures["rows_wrong"] == figures["reads_wrong"] == 0
    for name in (
        "acked_per_s",
        "applied_per_s",
        "visible_p50_ms",
        "visible_p99_ms",
        "reads_per_s",
        "read_p50_ms",
        "read_p99_ms",
    ):
        assert figures[name] > 0, name
    assert {
        "start",
        "load_flights",
        "apply",
        "counter",
        "race",
        "ending",
        "cells",
        "feed",
        "check",
        "archive",
        "compact",
        "adopt",
        "bootstrap",
        "restore",
        "diff",
        "stop",
    } <= figures["steps"].keys()
    assert figures["digests_equal"] is True
    for name in (
        "archive_s",
        "archive_per_s",
        "compact_s",
        "written_meanwhile",
        "bootstrap_ready_s",
        "bootstrap_answer_ms",
        "restore_s",
    ):
        assert figures[name] > 0, name
    assert figures["restored_records"] == 2_000
    assert 0 < figures["restored_rows_checked"] < figures["adopted_rows_checked"]
    assert figures["adopted_rows_checked"] == figures["bootstrap_rows_checked"] == sum(figures["rows"].values())
    assert "rows checked" in output
    assert holders(tmp_path) == []


def test_the_fast_path_alone_makes_no_snapshot(tmp_path):
    file = tmp_path / "figures.json"
    with demo("--fast", "--limit", "1000", "--json", str(file), "--data-dir", str(tmp_path / "data")) as running:
        output, errors = running.communicate(timeout=400)
    assert running.returncode == 0, output + errors
    figures = orjson.loads(file.read_bytes())
    assert (figures["ok"], figures["archive_s"], figures["bootstrap_rows_checked"]) == (True, None, None)


@pytest.mark.parametrize("after", ["create", "check all"])
def test_a_demo_that_is_interrupted_leaves_nothing_behind(tmp_path, after):
    with demo("--limit", "1000", TMPDIR=str(tmp_path)) as running:
        read_until(running, after)
        assert holders(tmp_path)
        if after == "check all":
            until("Spark starts", lambda: any("SparkSubmit" in word for word in commands(running.pid)))
        descendants = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 130, errors
    assert holders(tmp_path) == []
    assert psutil.wait_procs(descendants, timeout=60)[1] == [], "Spark's Java ends too"
    assert list(tmp_path.glob("logstore-demo-*")) == []


def test_the_store_ends_with_a_demo_that_is_killed(tmp_path):
    with demo("--data-dir", str(tmp_path / "data")) as running:
        read_until(running, "start")
        assert len(holders(tmp_path)) > 4, "the demo, the node, Kafka, a worker, readers"
        running.kill()
        running.communicate(timeout=60)
        until("the store has ended", lambda: not holders(tmp_path))


def test_a_directory_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine").touch()
    with demo("--data-dir", str(tmp_path)) as running:
        _, errors = running.communicate(timeout=120)
    assert running.returncode == 2
    assert "not empty" in errors


def test_a_wrong_row_makes_the_demo_fail(monkeypatch, tmp_path):
    monkeypatch.setattr(
        program.demo, "run", lambda _place, _limit, *, fast: Report(rows_checked=100, rows_wrong=1 + fast)
    )
    file = tmp_path / "figures.json"
    assert CliRunner().invoke(program.main, ["--json", str(file)]).exit_code == 1
    assert orjson.loads(file.read_bytes())["ok"] is False


def test_a_report_with_a_wrong_row_is_not_ok_in_words_either(capsys):
    Report(rows_checked=1, rows_wrong=1, wrong=["different: b'JFK/2013-01-01/AA1'"]).show()
    printed = capsys.readouterr().out
    assert "NOT as in the source" in printed
    assert "JFK/2013-01-01/AA1" in printed


@contextmanager
def demo(*options: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A running demo; ended when the test ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.flights", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
        env={**os.environ, **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: "subprocess.Popen[str]", beginning: str) -> None:
    """Read lines of stderr up to the one that says that a step is done."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if line.startswith(beginning):
            return
    raise AssertionError("".join(said))


def commands(pid: int) -> list[str]:
    """Every word of the command lines of a process's descendants."""
    words: list[str] = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            words += process.cmdline()
    return words


def holders(directory: Path) -> list[str]:
    """Processes whose command line names `directory`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            words = process.cmdline()
            if process.pid != os.getpid() and any(str(directory) in word for word in words):
                found.append(" ".join(words)[:300])
    return found
