"""One set-up of logging: JSON lines or lines for people, levels by module, children's lines, bounded repetition."""

import asyncio
import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import orjson
import pytest
from support_classes import ROOT

from logstore.log.tables.registry import Registry
from logstore.model.errors import UsageError
from logstore.model.log_levels import parse_levels
from logstore.process import logs
from streaming.app import PlainWorker, make_app


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where `logs.set_up` of a test writes; logging is as before afterwards."""
    root, names = logging.getLogger(), ("logstore", "streaming", "batch", "streaming.lane", "aiokafka")
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield io.StringIO()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def lines(out: io.StringIO) -> list[dict]:
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def test_elsewhere_a_line_is_json_with_its_fields(out):
    logs.set_up("worker-3", stream=out)
    logs.get("streaming.lane.status").info("the partition is live", table="users", partition=2, applied=17)
    (line,) = lines(out)
    assert list(line)[:5] == ["time", "level", "process", "logger", "event"]
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {
        "level": "info", "process": "worker-3", "logger": "streaming.lane.status", "event": "the partition is live",
        "table": "users", "partition": 2, "applied": 17,
    }  # fmt: skip


def test_a_line_of_the_library_has_the_same_form_and_an_exception_is_a_field_of_one_line(out):
    logs.set_up("worker-0", stream=out)
    try:
        int("a cause")
    except ValueError:
        logging.getLogger("logstore.log.write.producer").exception("%d records are lost", 3)
    (line,) = lines(out)
    assert (line["event"], line["level"]) == ("3 records are lost", "error")
    assert "ValueError: invalid literal" in line["exception"]


def test_for_people_a_line_is_text_without_terminal_codes_where_there_is_no_terminal(out):
    logs.set_up("node", form="console", stream=out)
    logs.get("logstore.node").warning("a child died", child="worker-0")
    text = out.getvalue()
    assert "a child died" in text
    assert "child=worker-0" in text
    assert "warning" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ("info", ["ours info"]),
        ("warning", []),
        ("info,streaming.lane=debug", ["ours info", "lane debug"]),
        ("error,aiokafka=info", ["library info"]),
        ("debug", ["ours info", "lane debug"]),
    ],
)
def test_levels_are_of_our_packages_and_of_single_loggers(out, levels, said):
    logs.set_up("node", levels=levels, stream=out)
    logging.getLogger("logstore.node").info("ours info")
    logs.get("streaming.lane.lane").debug("lane debug")
    logging.getLogger("aiokafka.conn").info("library info")
    assert [line["event"] for line in lines(out)] == said


def test_libraries_warn_whatever_is_asked_of_ours(out):
    logs.set_up("node", levels="debug", stream=out)
    logging.getLogger("aiokafka").warning("a warning")
    assert [line["event"] for line in lines(out)] == ["a warning"]


@pytest.mark.parametrize("wrong", ["", "loud", "streaming.lane=", "a b=info", "=info", "info;debug"])
def test_a_level_that_is_none_is_an_error_that_says_what_can_be_written(wrong):
    with pytest.raises(UsageError, match=r"write debug, info, warning, error, critical, or LOGGER=LEVEL"):
        parse_levels(wrong)


def test_a_childs_warning_is_relayed_as_it_was_said(out):
    child = io.StringIO()
    logs.set_up("worker-1", stream=child)
    logs.get("streaming.lane.lane").warning("the partition waits", table="t", partition=1, reason="no space left")
    line = child.getvalue().encode().strip()
    logs.set_up("node", stream=out)
    fields = logs.read(line)
    assert fields is not None
    assert logs.is_loud(fields)
    logs.relay(fields)
    assert out.getvalue().encode().strip() == line


def test_a_relayed_line_may_have_any_field_of_a_log_record(out):
    logs.set_up("node", stream=out)
    logs.relay({"event": "x %s", "level": "error", "logger": "other", "args": [1], "msg": "y", "lineno": 3, "free": 4})
    (line,) = lines(out)
    assert (line["event"], line["free"]) == ("x %s", 4)


@pytest.mark.parametrize("text", [b"", b"plain", b"{", b"{}", b'{"event": "x"}', b"[1]", b"{\xff}"])
def test_other_text_is_no_line_of_ours(text):
    assert logs.read(text) is None


def test_a_line_that_repeats_itself_is_left_out_and_counted(out, monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now_s)
    logs.set_up("worker-0", stream=out)
    log = logging.getLogger("aiokafka")
    for _ in range(100):
        log.error("no connection")
    log.error("another cause")
    now_s += logs.REPEAT_S
    log.error("no connection")
    assert [(line["event"], line.get("repeated")) for line in lines(out)] == [
        *[("no connection", None)] * logs.BURST, ("another cause", None), ("no connection", 100 - logs.BURST),
    ]  # fmt: skip


def test_partitions_and_requests_are_told_apart_and_the_access_log_is_whole(out):
    logs.set_up("worker-0", stream=out)
    for partition in range(20):
        logs.get("streaming").error("the partition stopped", table="t", partition=partition)
    for number in range(200):
        logs.get("logstore.serve").warning("a request was slow", request_id=str(number))
        logs.get(logs.ACCESS).info("a request was answered", request_id=str(number))
    events = [line["event"] for line in lines(out)]
    assert events.count("the partition stopped") == 20
    assert events.count("a request was slow") == logs.REQUEST_BURST
    assert events.count("a request was answered") == 200


def test_what_is_counted_is_bounded():
    repetition = logs.Repetition()
    for number in range(5_000):
        repetition.filter(logging.LogRecord("x", logging.WARNING, "", 0, f"text {number}", (), None))
    assert len(repetition._seen) <= 1_000


def test_whatever_is_logged_while_a_request_is_answered_has_its_id(out):
    logs.set_up("reader-0", stream=out)
    token = logs.REQUEST_ID.set("abc-1")
    try:
        logging.getLogger("logstore.serve.state").warning("a snapshot is damaged")
    finally:
        logs.REQUEST_ID.reset(token)
    logging.getLogger("logstore.serve.state").warning("something else")
    assert [line.get("request_id") for line in lines(out)] == ["abc-1", None]


def test_an_event_without_a_set_up_is_an_ordinary_record(caplog, capsys):
    with caplog.at_level(logging.INFO, "streaming"):
        logs.get("streaming.x").info("slots gained", slots=[1, 2])
    assert (caplog.records[-1].getMessage(), vars(caplog.records[-1])["slots"]) == ("slots gained", [1, 2])
    assert capsys.readouterr().out == ""


def test_a_child_logs_as_its_environment_says():
    code = (
        "import os; from logstore.process import logs; logs.set_up_child('reader-9', os.environ);"
        "log = logs.get('logstore.serve.x'); log.debug('quiet'); log.info('heard', n=1)"
    )
    environ = os.environ | logs.for_children("error,logstore.serve=info")
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, timeout=60, check=True)
    (line,) = [orjson.loads(line) for line in done.stderr.splitlines()]
    assert (line["process"], line["event"], line["n"]) == ("reader-9", "heard", 1)


def test_fausts_runner_leaves_logging_alone(out, tmp_path):
    logs.set_up("worker-0", stream=out)
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.stdout, sys.stderr
    app = make_app("g", "127.0.0.1:1", tmp_path, 4, lambda _: None)
    runner = app.Worker()
    try:
        assert isinstance(runner, PlainWorker)
        runner._setup_logging()
        assert (root.handlers[:], root.level, sys.stdout, sys.stderr) == before
    finally:
        asyncio.set_event_loop(None)
        runner.loop.close()
    assert (runner.spinner, runner.redirect_stdouts, runner.quiet) == (None, False, True)


def test_while_kafka_is_known_to_be_away_the_transports_libraries_say_no_more_of_it(out):
    logs.set_up("worker-0", stream=out)
    try:
        logs.OUTAGE.begin()
        for number in range(40):
            logging.getLogger("aiokafka.client").error("Unable connect to node with id %d", number)
        logging.getLogger("aiokafka").critical("the end")
        logs.get("streaming.lane").warning("the partition waits")
        assert logs.OUTAGE.end() == 40
        logging.getLogger("aiokafka.client").error("another")
    finally:
        logs.OUTAGE.end()
    assert [line["event"] for line in lines(out)] == ["the end", "the partition waits", "another"]


JOB = """
import logging, click
from batch.cli.options import with_context

@click.command()
@with_context
def job(context):
    logging.getLogger("batch.x").warning("said by %s", "a job")

job()
"""


def test_a_batch_job_logs_as_a_node_does(kafka):
    Registry(kafka.bootstrap).ensure_store()
    environ = os.environ | {"LOGSTORE_BOOTSTRAP": kafka.bootstrap, "LOGSTORE_LOG_LEVEL": "error,batch.x=warning"}
    done = subprocess.run(
        [sys.executable, "-c", JOB], env=environ, cwd=ROOT, capture_output=True, timeout=300, check=True
    )
    (line,) = [orjson.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert (line["process"], line["level"], line["event"]) == ("batch", "warning", "said by a job")


WITHOUT_RICH = """
import sys
if sys.argv[1:]:
    import rich.console
from logstore.process import logs
assert ("rich" in sys.modules) == bool(sys.argv[1:]), "structlog has loaded it, or it is gone"
from rich.console import Console
from rich.traceback import Traceback
if sys.argv[1:]:
    assert Console is rich.console.Console
"""


@pytest.mark.parametrize("before", [[], ["loaded before"]])
def test_logging_loads_no_rich_and_leaves_it_to_those_who_use_it(before):
    subprocess.run([sys.executable, "-c", WITHOUT_RICH, *before], check=True, timeout=120, cwd=ROOT)
