"""Command lines of a node's workers and readers, the same under the node's supervisor and under another."""

from logstore.process import child
from logstore.settings import Settings


def worker_argv(s: Settings, index: int, node: str, url: str, bootstrap: str) -> list[str]:
    """Command line of a worker of the node `node`, whose readers answer at `url`."""
    return [
        *child.python("streaming"), "--bootstrap", bootstrap, "--data-dir", str(s.data_dir),
        "--worker", str(index), "--workers", str(s.workers), "--readers", str(s.readers),
        "--node", node, "--url", url, "--group", s.group, "--zone", s.zone, "--sync", s.sync,
        "--fetch-mb-s", str(s.fetch_mb_s),
    ]  # fmt: skip


def reader_argv(s: Settings, index: int, node: str, port: int, bootstrap: str | None) -> list[str]:
    """Command line of a reader of the node `node`, on the port that its readers share.

    `bootstrap`: Kafka's address; without it the reader serves no change feed and takes no writes.
    """
    return [
        *child.python("logstore.serve"), "--data-dir", str(s.data_dir), "--host", s.http.host, "--port", str(port),
        "--workers", str(s.workers), "--node", node, "--index", str(index), "--slow-ms", str(s.slow_ms),
        *(["--access-log"] if s.access_log else []), *(["--insecure"] if s.insecure else []),
        *(["--writes"] if s.writes else []),
        *([] if bootstrap is None else ["--bootstrap", bootstrap]),
    ]  # fmt: skip
