"""Control records: the store's own in a table's log: a null key, an explicit partition, the header `ls.op`, msgpack.

They take an offset like any other record and change no row. The byte map is in `docs/log_format.md`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
from confluent_kafka import KafkaError

from logstore.log import topics
from logstore.log.connect.acl import topic
from logstore.log.kafka import clients, errors
from logstore.model.errors import EpochChanged, LogStoreError, LogUnreachable, UsageError
from logstore.model.folding.mutation import CONTROLS
from logstore.model.table import Table

DELIVERY_S = 60.0  # after a broker's start an idempotent producer can wait 10 s for its coordinator


def append_control(
    bootstrap: str, table: Table, op: str, payload: Mapping[str, Any], partitions: Iterable[int] | None = None
) -> dict[int, int]:
    """Append one control record to each of `partitions` (None.

    To all), acknowledged by all replicas; returns partition -> offset.

    Raises UsageError for an unknown operation or a table that takes none, EpochChanged when the topic is another one
    now, LogUnreachable when an acknowledgement did not come: then some partitions may hold the record, which is
    harmless.
    """
    if op not in CONTROLS:
        raise UsageError(f"{op!r} is no control operation; there are {', '.join(sorted(CONTROLS))}")
    if not table.allow_control_records:
        raise UsageError(
            f"table {table.name} takes no control records: its topic was adopted without --allow-control-records"
        )
    check_epoch(bootstrap, table)
    wanted = range(table.partitions) if partitions is None else sorted(set(partitions))
    return _append(bootstrap, table, op, msgpack.packb(dict(payload)), wanted)


def check_epoch(bootstrap: str, table: Table) -> None:
    """Compare the table's epoch with its topic.

    Raises EpochChanged when the topic is gone or another one, LogUnreachable.
    """
    actual = topics.epoch_of(clients.admin(bootstrap), table.topic)
    if actual != table.epoch:
        what = "is gone" if actual is None else f"was created again (its id is {actual} now)"
        raise EpochChanged(
            f"the topic {table.topic} of table {table.name} {what}: its offsets mean something else; "
            f"`logstore table describe {table.name}` shows the epoch that is known"
        )


def is_fenced(bootstrap: str, table: Table) -> bool:
    """Append a `fence` record to every partition.

    True when each of them refuses it, as a topic does that takes no more records.

    Raises LogUnreachable. Where it is appended it changes nothing.
    """
    producer = _producer(bootstrap)
    delivered = _deliver(producer, table, "fence", msgpack.packb({"table": table.name}), range(table.partitions))
    for error, _ in delivered:
        if error is not None and error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            raise errors.translate(
                error, f"append a fence record to {table.topic}", producer, topic("WRITE", table.topic)
            )
    return all(error is not None for error, _ in delivered)


def _append(bootstrap: str, table: Table, op: str, value: bytes, partitions: Iterable[int]) -> dict[int, int]:
    producer = _producer(bootstrap, idempotent=op != "cut")
    delivered = _deliver(producer, table, op, value, partitions)
    for error, _ in delivered:
        if error is not None:
            raise errors.translate(
                error, f"append a {op} record to {table.topic}", producer, topic("WRITE", table.topic)
            )
    return {record.partition(): int(record.offset()) for _, record in delivered}


def _unappended(error: Any, op: str, table: Table, producer: Any) -> LogStoreError:
    needed = topic("WRITE", table.topic)
    return errors.translate(error, f"append a {op} record to {table.topic}", producer, needed)


def _producer(bootstrap: str, *, idempotent: bool = True) -> Any:
    """A producer of a few records.

    An idempotent one of librdkafka begins with a pause of half a second. A cut does without: should its acknowledgement
    be lost, it is appended twice, and the second one, whose offset is told, is where the log is cut.
    """
    own = {"acks": "all", "enable.idempotence": idempotent, "linger.ms": 0}
    return clients.producer(bootstrap, **own, **{"delivery.timeout.ms": int(DELIVERY_S * 1000)})


def _deliver(producer: Any, table: Table, op: str, value: bytes, partitions: Iterable[int]) -> list[tuple[Any, Any]]:
    """Outcome of every partition as (error or None, record); raises LogUnreachable when not all were answered."""
    delivered: list[tuple[Any, Any]] = []
    wanted = list(partitions)
    for partition in wanted:
        producer.produce(
            table.topic, value, partition=partition, headers=[("ls.op", op.encode())],
            on_delivery=lambda error, record: delivered.append((error, record)),
        )  # fmt: skip
    errors.flush(producer, DELIVERY_S + 5, f"append a {op} record to {table.topic}", table.topic)
    if len(delivered) < len(wanted):
        clients.check_access(producer)
        raise LogUnreachable(
            f"append a {op} record to {table.topic}: Kafka acknowledged {len(delivered)} of {len(wanted)}; try again"
        )
    return delivered
