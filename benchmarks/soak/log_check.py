"""The log itself, read with a plain consumer at the end: what it holds, and what it folds to, by other code."""

from collections import Counter

from confluent_kafka import Consumer, TopicPartition

from benchmarks.soak.history import History

Log = list[tuple[int, str | None, str | None]]  # offset, key, value; control records have no key


def read_log(bootstrap: str, topic: str, partitions: int) -> dict[int, Log]:
    """All records by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "soak-check",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
        }
    )
    logs: dict[int, Log] = {}
    for partition in range(partitions):
        begin, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=60)
        consumer.assign([TopicPartition(topic, partition, begin)])
        logs[partition] = list(_until_end(consumer))
    consumer.close()
    return logs


def wrong_in_log(logs: dict[int, Log], history: History) -> list[str]:
    """What the log holds otherwise than was acknowledged or refused, and what it holds twice."""
    wrong = []
    where = {(partition, offset): (key, value) for partition, log in logs.items() for offset, key, value in log}
    values = Counter(value for log in logs.values() for _, key, value in log if key is not None and value is not None)
    begins = {partition: log[0][0] if log else 0 for partition, log in logs.items()}
    for key, known in history.keys.items():
        for offset, value in known.acknowledged:
            assert known.partition is not None
            if offset >= begins[known.partition] and where.get((known.partition, offset)) != (key, value):
                wrong.append(f"lost: {key}={value} acknowledged at {known.partition}/{offset}")
        wrong += [f"refused, and in the log: {key}={value}" for value in known.refused if value and values[value]]
    return wrong + [f"twice in the log: {value}" for value, count in values.items() if count > 1]


def folded(logs: dict[int, Log]) -> dict[str, tuple[int, str]]:
    """Rows that the log folds to: the newest mutation of every key, if it is no delete."""
    rows: dict[str, tuple[int, str | None]] = {}
    for log in logs.values():
        rows.update({key: (offset, value) for offset, key, value in log if key is not None})
    return {key: (offset, value) for key, (offset, value) in rows.items() if value is not None}


def _until_end(consumer: Consumer) -> Log:
    found: Log = []
    while True:
        message = consumer.poll(60)
        if message is None:
            raise RuntimeError("nothing came from Kafka for 60 s")
        if message.error():
            return found
        key, value, offset = message.key(), message.value(), message.offset()
        assert offset is not None
        found.append((offset, key.decode() if key else None, value.decode() if key and value is not None else None))
