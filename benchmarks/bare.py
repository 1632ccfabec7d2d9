"""Bare Kafka consumer: what a program reaches that only takes records, to compare ours with."""

from typing import Any

from confluent_kafka import Consumer


def bare_consumer(bootstrap: str) -> Any:
    """A consumer with the settings of the lane's fetches."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bare",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "check.crcs": True,
            "fetch.queue.backoff.ms": 2,
            "queued.min.messages": 1_000_000,
            "queued.max.messages.kbytes": 65_536,
        }
    )
