"""HTTP point reads of one reader, beside a constant raw ASGI answer on uvicorn and, where installed, nginx and a file.

Work: 200,000 rows of 100 bytes under 16-byte keys in 4 partitions, read at random by wrk over 32 connections; the three
servers take turns within each round, so that what disturbs one disturbs all. Figures are medians of the rounds. Answers
are sampled and compared before and after, and an answer that is not 200 makes the whole run void.
"""

import contextlib
import json
import os
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from logstore.model.folding.fold import FoldRules, Records, fold_batch
from logstore.model.partitioner import partitions_of
from logstore.model.slots import DEFAULT_SLOTS
from logstore.model.table import Table
from logstore.view import paths
from logstore.view.feed.node_records import NodeRecord, NodesKey, NodesRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.table_records import TablesKey, TablesRecord
from logstore.view.feed.view_records import LIVE, ViewKey, ViewRecord
from logstore.view.view import View, ViewIdentity

ROWS, VALUE_BYTES, PARTITIONS, CONNECTIONS = 200_000, 100, 4, 32
_EPOCH = "b" * 32
NODE = "bench"
_AIMS = {"constant ASGI": 1.6, "nginx static": 0.8}
_NGINX_WAYS = {
    # as Debian's package sets it: the file is looked up for every request
    "nginx static": "sendfile on; tcp_nopush on;",
    "nginx, the file held open": "open_file_cache max=10;",  # and never looked up again: the fastest that was found
}
_CONSTANT = f"""
import sys, uvicorn
BODY = b"x" * {VALUE_BYTES}
HEADERS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"{VALUE_BYTES}")]
async def app(scope, receive, send):
    await send({{"type": "http.response.start", "status": 200, "headers": HEADERS}})
    await send({{"type": "http.response.body", "body": BODY}})
uvicorn.run(
    app, port=int(sys.argv[1]), loop="uvloop", http="httptools", lifespan="off", access_log=False, log_level="error"
)
"""
_NGINX = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  keepalive_requests 1000000000; {way}
  server {{ listen 127.0.0.1:{port}; root {dir}/www; }}
}}
"""
_RANDOM_KEYS = """
math.randomseed({seed})
request = function() return wrk.format("GET", string.format("/v1/tables/t/rows/key-%012d", math.random(0, {last}))) end
"""
_ONE_FILE = 'request = function() return wrk.format("GET", "/value") end'


def run(data_dir: Path, seconds: int = 5, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows for the table of `make bench`.

    Ours, the ceiling, their ratio, and latencies in milliseconds. Scratch lies under `data_dir`.
    """
    if shutil.which("wrk") is None:
        return [{"name": "http get", "skipped": "wrk is not installed"}]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=data_dir)))
        reader = stack.enter_context(reader_of(scratch / "node"))
        peers = {"constant ASGI": stack.enter_context(_constant(scratch))}
        if shutil.which("nginx") is not None:
            peers |= {
                name: stack.enter_context(_nginx(scratch / f"nginx-{i}", way))
                for i, (name, way) in enumerate(_NGINX_WAYS.items())
            }
        _check(reader)
        ours, theirs = _rounds(scratch, reader, peers, seconds, rounds)
        _check(reader)
    results = [_row(name, ours, measured) for name, measured in theirs.items()]
    return (
        results
        if "nginx static" in peers
        else [*results, {"name": "http get / nginx static", "skipped": "nginx is not installed"}]
    )


def _rounds(
    scratch: Path, reader: str, peers: dict[str, str], seconds: int, rounds: int
) -> tuple[list[dict[str, float]], dict[str, list[dict[str, float]]]]:
    keys, file = scratch / "keys.lua", scratch / "file.lua"
    file.write_text(_ONE_FILE)
    ours: list[dict[str, float]] = []
    theirs: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
    for number in range(rounds):
        keys.write_text(_RANDOM_KEYS.format(seed=number, last=ROWS - 1))
        ours.append(_wrk(reader, keys, seconds))
        for name, url in peers.items():
            theirs[name].append(_wrk(url, keys if name == "constant ASGI" else file, seconds))
    return ours, theirs


def _wrk(url: str, script: Path, seconds: int) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--latency", "-s", str(script), url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"{url} gave wrong answers under load:\n{text}")
    return {
        "per_s": float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        "p50_ms": _latency(text, "50%"),
        "p99_ms": _latency(text, "99%"),
    }


def _latency(text: str, percentile: str) -> float:
    figure = _find(rf"\n\s+{percentile}\s+([\d.]+(?:us|ms|s))", text)
    for unit, milliseconds in (("us", 0.001), ("ms", 1.0), ("s", 1000.0)):
        if figure.endswith(unit):
            return float(figure.removesuffix(unit)) * milliseconds
    raise RuntimeError(f"wrk printed no latency: {text}")


def _find(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"wrk printed something else: {text}")
    return match[1]


def _row(peer: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> dict[str, Any]:
    def median(rows: list[dict[str, float]], name: str) -> float:
        return statistics.median(row[name] for row in rows)

    ratios = [mine["per_s"] / its["per_s"] for mine, its in zip(ours, theirs, strict=True)]
    return {
        "name": f"http get / {peer}", "unit": "requests/s", "ours": median(ours, "per_s"),
        "ceiling": median(theirs, "per_s"),
        "ratio": statistics.median(ratios), "ratios": ratios, "aim": _AIMS.get(peer),
        "p50_ms": median(ours, "p50_ms"), "p99_ms": median(ours, "p99_ms"),
        "ceiling_p50_ms": median(theirs, "p50_ms"), "ceiling_p99_ms": median(theirs, "p99_ms"),
        "connections": CONNECTIONS,
    }  # fmt: skip


def key_of(i: int) -> bytes:
    """The key of row number `i`."""
    return b"key-%012d" % i


def value_of(i: int) -> bytes:
    """The value of row number `i`."""
    return (b"%d/" % i * VALUE_BYTES)[:VALUE_BYTES]


def _check(url: str) -> None:
    source = random.Random(1)
    with httpx.Client(base_url=url, trust_env=False) as client:
        for i in [0, ROWS - 1, *source.sample(range(ROWS), 300)]:
            answer = client.get(f"/v1/tables/t/rows/{key_of(i).decode()}")
            if answer.content != value_of(i):
                raise RuntimeError(f"the reader answered {key_of(i)!r} with {answer.content[:80]!r}")


@contextlib.contextmanager
def reader_of(data_dir: Path) -> Iterator[str]:
    """A real reader process over real views; this process stands for the worker."""
    feed = FeedServer(paths.feed_path(data_dir, 0))
    views = _views(data_dir)
    table = Table("t", "t", _EPOCH, PARTITIONS)
    slots = tuple(range(DEFAULT_SLOTS))
    feed.publish(TablesKey(), TablesRecord(1, _EPOCH, tables=(table.to_json(),)))
    feed.publish(NodesKey(), NodesRecord((NodeRecord(NODE, 0, slots=slots, live=slots, tables=1),)))
    for partition, view in enumerate(views):
        feed.publish(ViewKey("t", _EPOCH, partition), ViewRecord(str(view.path), partition, LIVE))
        feed.publish(AppliedKey(_EPOCH, partition), AppliedRecord(view.next_offset, view.next_offset))
    with reader_process(data_dir, NODE) as url:
        yield url
    feed.close()
    for view in views:
        view.close()


def _views(data_dir: Path) -> list[View]:
    keys = [key_of(i) for i in range(ROWS)]
    homes = partitions_of(keys, PARTITIONS).tolist()
    views = []
    for partition in range(PARTITIONS):
        mine = [i for i in range(ROWS) if homes[i] == partition]
        count = len(mine)
        records = Records(
            range(count), [keys[i] for i in mine], [value_of(i) for i in mine], [1] * count, [None] * count
        )
        path = paths.partition_dir(data_dir, "t", _EPOCH, partition) / "1"
        view = View(path, ViewIdentity("t", _EPOCH, partition, PARTITIONS, 1_000_000), map_bytes=1 << 30)
        view.apply(fold_batch(records, FoldRules(partition, PARTITIONS, 1_000_000), 0, 0))
        views.append(view)
    return views


@contextlib.contextmanager
def _constant(scratch: Path) -> Iterator[str]:
    program, port = scratch / "constant.py", _free_port()
    program.write_text(_CONSTANT)
    with _running([sys.executable, str(program), str(port)], f"http://127.0.0.1:{port}", "/") as url:
        yield url


@contextlib.contextmanager
def _nginx(folder: Path, way: str) -> Iterator[str]:
    port = _free_port()
    (folder / "www").mkdir(parents=True)
    (folder / "www" / "value").write_bytes(b"x" * VALUE_BYTES)
    folder.parent.chmod(0o755)  # its worker may run as another user
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(dir=folder, port=port, way=way) + ("user root;\n" if os.geteuid() == 0 else ""))
    with _running(["nginx", "-p", str(folder), "-c", str(config)], f"http://127.0.0.1:{port}", "/value") as url:
        yield url


@contextlib.contextmanager
def reader_process(data_dir: Path, node: str) -> Iterator[str]:
    """URL of a reader process of a node, whose feed somebody publishes, until it has ended."""
    port = _free_port()
    command = [sys.executable, "-m", "logstore.serve", "--data-dir", str(data_dir), "--port", str(port), "--node", node]
    with _running(command, f"http://127.0.0.1:{port}", "/readyz") as url:
        yield url


@contextlib.contextmanager
def _running(command: list[str], url: str, page: str) -> Iterator[str]:
    """A server process, from the moment it answers `page` until it has ended."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        while not _answers(url + page):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"{command[0]} does not answer {url}{page}")
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=2).is_success
    except httpx.TransportError:
        return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    print(json.dumps(run(Path(tempfile.gettempdir())), indent=2))
