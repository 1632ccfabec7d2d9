"""Writing to a topic the way other tools do: straight, with and without care."""

from typing import Any

from confluent_kafka import Producer
from support_wait import until

from logstore.log.kafka import clients, offsets

Headers = list[tuple[str, bytes | None]]


def produce(
    bootstrap: str,
    topic: str,
    records: list[tuple[bytes | None, bytes | None]],
    partition: int | None = None,
    headers: Headers | None = None,
) -> list[tuple[int, int]]:
    """Append records; returns (partition, offset) of each."""
    producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 1})
    placed: list[tuple[int, int]] = []
    failed: list[Any] = []

    def delivered(error: Any, record: Any) -> None:
        failed.append(error) if error else placed.append((record.partition(), record.offset()))

    for key, value in records:
        more = {} if partition is None else {"partition": partition}
        producer.produce(topic, value, key, headers=headers, on_delivery=delivered, **more)
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not failed, failed
    return placed


def transactional(bootstrap: str, name: str) -> Producer:
    """A transactional producer, ready to begin."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": name, "linger.ms": 1, "partitioner": "murmur2_random"}
    )
    producer.init_transactions(30)
    return producer


def markers_written(bootstrap: str, topic: str, partition: int = 0) -> None:
    """Wait until the brokers have written the markers of ended transactions: the coordinator answers before that."""
    client = clients.admin(bootstrap)

    def stable() -> bool:
        ends = [
            offsets.bounds(client, topic, [partition], committed=committed)[partition].end
            for committed in (True, False)
        ]
        return ends[0] == ends[1]

    until("the transactions' markers are in the log", stable)
