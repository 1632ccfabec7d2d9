"""Limits of a writer: what a producer may hold, and for how long. Apart from it, so that to know them loads nothing."""

from typing import Literal

OnFull = Literal["wait", "error"]
QUEUE_RECORDS = 200_000
QUEUE_BYTES = 256 * 1024 * 1024
DELIVERY_TIMEOUT_S = 60.0  # after a broker change an idempotent producer can wait 10 s for its coordinator
LINGER_MS = 0.0  # a record waits for company only while requests are on their way: librdkafka's timers cost 2 ms
COMPRESSION = "lz4"
GRACE_S = 5.0  # beyond the delivery timeout, for librdkafka to report it
