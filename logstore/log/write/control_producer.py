"""Control producer: control records that are sent without waiting, for what comes often (`log.control` waits)."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import msgpack
from confluent_kafka import KafkaException

from logstore.log.connect.acl import topic
from logstore.log.kafka import errors
from logstore.log.write.connection import Connection
from logstore.model.errors import LogStoreError, LogUnreachable
from logstore.model.table import Table


class ControlProducer:
    """Producer of control records that nobody waits for: each is reported when all replicas have it, or when not.

    Whether the topic is still the table's is not asked: who is told an offset compares it with what it knows.
    """

    def __init__(self, bootstrap: str, delivery_s: float) -> None:
        """Nothing is awaited. A record that is not acknowledged after `delivery_s` is given up."""
        own = {"acks": "all", "linger.ms": 0, "delivery.timeout.ms": int(delivery_s * 1000)}
        # as a cut it may be appended twice, and that is why it needs no idempotence, which begins with a pause
        self._connection = Connection(bootstrap, {**own, "enable.idempotence": False})

    def append(
        self, table: Table, op: str, payload: Mapping[str, Any], partition: int,
        report: Callable[[int | LogStoreError], None],
    ) -> None:  # fmt: skip
        """Send one; `report` is told its offset, or the error, on the producer's thread. Raises LogUnreachable."""
        raw, what = self._connection.raw, f"append a {op} record to {table.topic}"

        def delivered(error: Any, record: Any) -> None:
            needed = topic("WRITE", table.topic)
            report(int(record.offset()) if error is None else errors.translate(error, what, raw, needed))

        value, headers = msgpack.packb(dict(payload)), [("ls.op", op.encode())]
        try:
            raw.produce(table.topic, value, partition=partition, headers=headers, on_delivery=delivered)
        except KafkaException as error:
            raise errors.translate(error.args[0], what, raw, topic("WRITE", table.topic)) from error
        except BufferError as error:
            raise LogUnreachable(f"{what}: {error}; Kafka takes less than is sent") from error

    def close(self) -> None:
        """Report what is on its way as it stands, and end."""
        self._connection.let_go(monotonic() + 1.0)
