"""Settings of a reader process. Every bound of the reader is a field here: unit, default, and what it costs."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from logstore.model.errors import SetupError

MAX_URL_BYTES = 256 * 1024  # an encoded 65,535-byte key fits
MAX_HEADER_BYTES = 128 * 1024  # all headers of a request together: the longest token and others
MAX_BODY_BYTES = 16 * 1024 * 1024  # keys of one multi-get as JSON: more than a page answers, however they are escaped
MAX_PARSED_BYTES = 128 * 1024  # of a body that is parsed on the event loop; a larger one is parsed beside it
MAX_ACCEPT_BYTES = 4 * 1024
MAX_PAGE_BYTES = 8 * 1024 * 1024  # keys and values of one list answer
MAX_PAGE_ROWS = 1_000
DEFAULT_PAGE_ROWS = 100
MAX_EXAMINED_BYTES = 64 * 1024 * 1024  # read by a scan before it ends its page, also where only keys are asked for
MAX_EXAMINED = 50_000  # entries a scan looks at before it ends its page: some 50 ms of the event loop at worst
MAX_WRITES_BYTES = 64 * 1024 * 1024  # of bodies that arrive and of records without an acknowledgement, together
MAX_WRITES_RECORDS = 10_000  # without an acknowledgement, of all requests together; more are answered 503
MAX_BATCH_BYTES = 8 * 1024 * 1024  # of the body of many writes
MAX_BATCH_ROWS = 1_000
DEFAULT_DEADLINE_MS = 2_000
MAX_DEADLINE_MS = 30_000
STUCK_WRITE_S = 30.0  # a client that reads nothing of what waits for it is cut off


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """Settings of one reader process."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 7878
    bootstrap: str | None = None  # Kafka's, for the change feed and for writes
    workers: int = 1  # feeds to follow: workers 0 .. workers-1 of this node
    node: str = "local"  # id of this node, as its workers announce it
    index: int = 0  # which reader of the node this is; a label in metrics
    insecure: bool = False  # serve beyond loopback although there is no authentication
    writes: bool = False  # take writes over HTTP; the first one costs a producer of Kafka, some 30 MB and a thread
    max_connections: int = 8_192  # more are answered 503 at once; each costs some 10 kB
    max_waiters: int = 10_000  # requests waiting for a token; more are answered 429
    request_timeout_s: float = 10.0  # a request's head must be complete by then; its body must keep a pace
    idle_timeout_s: float = 75.0  # a kept-alive connection without a request is closed
    stop_timeout_s: float = 3.0  # what runs at SIGTERM may take this long
    heartbeat_fd: int | None = None  # the supervisor's pipe: a beat a second from the event loop
    say_ready: bool = False  # a line of JSON on stdout, once, as soon as /readyz says yes
    slow_ms: int = 1_000  # a request that takes longer is logged
    access_log: bool = False  # every request is logged, and none goes the fast path
    ready_lag: int = 100_000  # records behind the log's end above which /readyz says no


def check_bind(host: str, *, insecure: bool) -> None:
    """Raise SetupError when `host` reaches beyond this machine and nobody said that this is meant."""
    if insecure or host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SetupError(
            f"refusing to serve on {host!r}: this build has no authentication, so whoever reaches that address could "
            "read everything (and with --writes change it); "
            "bind to 127.0.0.1, or say --insecure if the network around it is trusted"
        )


def need_log(settings: ReaderSettings) -> str:
    """Kafka's address. Raises SetupError where writes are wanted and none was given."""
    if settings.bootstrap is None:
        raise SetupError("writes go to Kafka: --writes needs --bootstrap HOST:PORT (LOGSTORE_BOOTSTRAP)")
    return settings.bootstrap
