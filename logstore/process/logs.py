"""Logs: the one set-up of logging that every process of ours has, and the format of a line.

    on a terminal   2026-11-29T19:02:11.123Z [warning  ] partition stopped   [streaming.lane.status] partition=3 ...
    elsewhere       {"time":"2026-11-29T19:02:11.123Z","level":"warning","process":"worker-0",
                     "logger":"streaming.lane.status","event":"partition stopped","table":"users","partition":3,...}

`event` is the same text each time, what differs are fields. A line of a request has its `request_id`. Lines of the
children of a node are JSON, whatever the node's own look like: the node knows their levels by it (`read`, `relay`).

`levels` is "info", or "info,streaming.lane=debug,aiokafka=info": of our packages, then of loggers by name. Libraries
say warnings and errors unless they are named. A line that repeats itself is left out after BURST times in REPEAT_S, and
the next one says how many were left out (`repeated`). While Kafka does not answer, which is one line, what the
libraries of the transport say of it is left out too (`OUTAGE`).
"""

import logging
import sys
import time
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any, cast

import orjson

from logstore.model.log_levels import LEVELS, OURS, parse_levels

# structlog loads rich where it is installed, for tracebacks that no line of ours has: half of what this module takes to
# load, in every process of a node. So there is none for it, and for everybody else there is the one that there was.
_rich = sys.modules.get("rich")
sys.modules["rich"] = None  # type: ignore[assignment]  # how Python is told that a module is not to be had
import structlog  # noqa: E402 - while there is no rich
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter  # noqa: E402 - while there is no rich

del sys.modules["rich"]
if _rich is not None:
    sys.modules["rich"] = _rich

FORMAT, LEVEL = "LOGSTORE_LOG_FORMAT", "LOGSTORE_LOG_LEVEL"  # environment of children
ACCESS = "logstore.access"  # the logger of requests, whose lines may repeat themselves
FILE_BYTES = 8 << 20
BURST, REPEAT_S = 3, 60.0
REQUEST_BURST = 50  # of lines that tell of requests
TRANSPORT = ("aiokafka", "faust", "mode")  # libraries that speak of each attempt to reach Kafka
_MOST_TEXTS = 1_000  # that are counted at a time

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)

_Event = MutableMapping[str, Any]


def get(name: str) -> BoundLogger:
    """A logger of events: `log.info("partition is live", table=..., partition=...)`.

    Fields are attributes of the record; what a record has of its own (`name`, `args`, `process` ...) is no field.
    """
    processors = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    logger = structlog.wrap_logger(logging.getLogger(name), processors=processors, wrapper_class=BoundLogger)
    return cast("BoundLogger", logger)


def set_up(
    process: str,
    *,
    form: str = "auto",
    levels: str = "info",
    stream: IO[str] | None = None,
    file: Path | None = None,
) -> None:
    """Log to `stream` (default: stderr) or to `file` from now on, and nowhere else; lines name `process`.

    A file is begun anew at FILE_BYTES, and the one before it is kept. Raises UsageError for levels that are none.
    """
    stream = sys.stderr if stream is None else stream
    terminal = file is None and stream.isatty()
    as_json = form == "json" or (form == "auto" and not terminal)
    handler = logging.StreamHandler(stream) if file is None else RotatingFileHandler(file, "a", FILE_BYTES, 1, "utf-8")
    handler.setFormatter(_formatter(process, as_json=as_json, colors=terminal))
    handler.addFilter(Repetition())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    logging.captureWarnings(capture=True)
    _set_levels(levels)


def for_children(levels: str) -> dict[str, str]:
    """Environment in which a child's `set_up_child` logs as its parent wants it to."""
    return {FORMAT: "json", LEVEL: levels}


def set_up_child(process: str, environ: Mapping[str, str]) -> None:
    """`set_up`, as the environment of a process says. Raises UsageError."""
    set_up(process, form=environ.get(FORMAT) or "auto", levels=environ.get(LEVEL) or "info")


def read(line: bytes) -> dict[str, Any] | None:
    """The fields of a line that a process of ours has logged; None for any other text."""
    if not line.startswith(b"{"):
        return None
    try:
        found = orjson.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and {"event", "level", "logger"} <= found.keys() else None


def is_loud(fields: Mapping[str, Any]) -> bool:
    """True for warnings and errors."""
    return _number(fields) >= logging.WARNING


def relay(fields: Mapping[str, Any]) -> None:
    """Log what a child has logged, as it said it: in this process's format, with the child's name and time."""
    logger = logging.getLogger(str(fields["logger"]))
    level = _number(fields)
    if not logger.isEnabledFor(level):
        return
    record = logger.makeRecord(logger.name, level, "", 0, str(fields["event"]), (), None)
    own = {"event", "level", "logger", "time", "process", *vars(record)}
    vars(record).update({name: value for name, value in fields.items() if name not in own})
    vars(record).update(said_by=fields.get("process"), said_at=fields.get("time"))
    logger.handle(record)


@dataclass(slots=True)
class _Said:
    """A text: since when it is counted, and how often it was said since."""

    since_s: float
    times: int = 1


class Outage:
    """Time in which it is known, and said in one line, that Kafka does not answer."""

    def __init__(self) -> None:
        self.lasts, self.left_out = False, 0

    def begin(self) -> None:
        """Leave out what the transport's libraries say of it from now on."""
        self.lasts, self.left_out = True, 0

    def end(self) -> int:
        """Let them speak again; returns how many of their lines were left out."""
        self.lasts = False
        return self.left_out

    def hides(self, record: logging.LogRecord) -> bool:
        """True for a line that says what is known."""
        if not self.lasts or record.name.partition(".")[0] not in TRANSPORT or record.levelno >= logging.CRITICAL:
            return False
        self.left_out += 1
        return True


OUTAGE = Outage()


class Repetition(logging.Filter):
    """Filter of log lines that repeat themselves: they are left out, and counted (`repeated`). Bounded."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], _Said] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line that was said often enough of late."""
        if record.name == ACCESS or record.levelno < logging.INFO:
            return True
        if OUTAGE.hides(record):
            return False
        now_s = time.monotonic()
        fields = vars(record)
        key = (record.name, record.getMessage(), *(fields.get(name) for name in ("table", "partition", "said_by")))
        burst = REQUEST_BURST if "request_id" in fields else BURST
        seen = self._seen.get(key)
        if seen is not None and now_s - seen.since_s < REPEAT_S:
            seen.times += 1
            return seen.times <= burst
        if seen is not None and seen.times > burst:
            fields["repeated"] = seen.times - burst
        if len(self._seen) >= _MOST_TEXTS:
            self._seen.clear()
        self._seen[key] = _Said(now_s)
        return True


def _formatter(process: str, *, as_json: bool, colors: bool) -> logging.Formatter:
    def name_process(_logger: Any, _method: str, event: _Event) -> _Event:
        event["process"] = event.pop("said_by", None) or process
        event["time"] = event.pop("said_at", None) or _time(event["_record"].created)
        request_id = REQUEST_ID.get()
        if request_id is not None:
            event.setdefault("request_id", request_id)
        return event

    renderers: list[Any] = [_ordered, structlog.processors.JSONRenderer(serializer=_dumps)]
    if not as_json:
        renderers = [_for_people, _console(colors=colors)]
    chain = [
        structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, ExtraAdder(), name_process,
        structlog.processors.format_exc_info, ProcessorFormatter.remove_processors_meta, *renderers,
    ]  # fmt: skip
    return ProcessorFormatter(processors=chain)


def _console(*, colors: bool) -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(
        colors=colors, timestamp_key="time", sort_keys=False, exception_formatter=structlog.dev.plain_traceback
    )


def _ordered(_logger: Any, _method: str, event: _Event) -> _Event:
    """Put first what every line has."""
    first = {name: event.pop(name) for name in ("time", "level", "process", "logger", "event") if name in event}
    return {**first, **event}


def _for_people(_logger: Any, _method: str, event: _Event) -> _Event:
    """A line names the process where a person would look for the logger."""
    event["logger"] = event.pop("process")
    return event


def _dumps(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _number(fields: Mapping[str, Any]) -> int:
    return LEVELS.get(str(fields["level"]), logging.ERROR)


def _set_levels(levels: str) -> None:
    default, by_name = parse_levels(levels)
    logging.getLogger().setLevel(max(default, logging.WARNING))
    for name in OURS:
        logging.getLogger(name).setLevel(default)
    for name, level in by_name.items():
        logging.getLogger(name).setLevel(level)
