"""Offsets of a log, as its leaders report them: where it begins and ends, and what lies at a time."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_END, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from logstore.log.connect.acl import topic as on_topic
from logstore.log.kafka.clients import REQUEST_S, consumer
from logstore.log.kafka.errors import call, translate
from logstore.log.kafka.leaders import check_led, is_stale, known_to_all
from logstore.model.errors import LogUnreachable

_ENDS_S = 5.0  # what is asked every second
_EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # untyped library
_LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # untyped library


class Bounds(NamedTuple):
    """Offsets `[start, end)` that a partition's log holds."""

    start: int
    end: int


def bounds(
    client: Any, topic: str, partitions: list[int], *, committed: bool = False, timeout_s: float = REQUEST_S
) -> dict[int, Bounds]:
    """Partition -> what its log holds now; with `committed` the end is that of the last stable offset (KIP-98)."""
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    starts, ends = (_offsets(client, topic, partitions, spec, level, timeout_s) for spec in (_EARLIEST, _LATEST))
    return {p: Bounds(starts[p], ends[p]) for p in partitions}


def ends(
    client: Any, places: Iterable[tuple[str, int]], *, committed: bool = False, timeout_s: float = _ENDS_S
) -> dict[tuple[str, int], int]:
    """Ends of logs, or their last stable offsets, by (topic, partition); those that cannot be told now are absent.

    Raises LogUnreachable when none can.
    """
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    futures = client.list_offsets(
        {TopicPartition(*place): _LATEST for place in places}, isolation_level=level, request_timeout=timeout_s
    )
    errors = {where: future.exception() for where, future in futures.items()}
    known = {where: int(futures[where].result().offset) for where, error in errors.items() if error is None}
    failed = next(((where, error) for where, error in errors.items() if error is not None), None)
    if failed is not None:
        stale = call(
            "look up the ends of the log", lambda: is_stale(client, failed[0].topic, failed[1]), client
        )  # it knows more next time
        if not known and not stale:
            check_led(client, failed[0].topic, failed[1])
            needed = on_topic("DESCRIBE", failed[0].topic)
            raise translate(failed[1].args[0], "look up the ends of the log", client, needed)
    found = {(where.topic, where.partition): end for where, end in known.items() if end >= 0}
    if known and not found:  # librdkafka's answer when a broker has just gone away: no error, and no offset
        raise LogUnreachable("look up the ends of the log: Kafka does not answer")
    return found


class EndsConsumer:
    """Consumer that asks for ends of logs, where leaders are as it knows them: a quarter of what `ends` costs.

    One thread at a time. It is connected when it is asked first.
    """

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._consumer: Any = None

    def ends(self, places: Iterable[tuple[str, int]], timeout_s: float) -> dict[tuple[str, int], int]:
        """Ends, with open transactions, by (topic, partition); those that it does not learn at once are absent."""
        if self._consumer is None:
            self._consumer = consumer(self._bootstrap, **{"isolation.level": "read_uncommitted"})
        # what lies at the time -1 is the end, in Kafka's protocol (ListOffsets)
        wanted = [TopicPartition(topic, partition, OFFSET_END) for topic, partition in places]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=timeout_s)
        except KafkaException:  # whoever asks has another way, which says why
            return {}
        return {(one.topic, one.partition): one.offset for one in found if one.error is None and one.offset >= 0}

    def close(self) -> None:
        """Let the connections go."""
        if self._consumer is not None:
            self._consumer.close()


def leader_epoch(client: Any, topic: str, partition: int) -> int:
    """The epoch of a partition's leadership now; -1: the broker does not tell. Raises LogUnreachable."""
    where = TopicPartition(topic, partition)
    future = client.list_offsets({where: _LATEST}, request_timeout=REQUEST_S)[where]
    what, needed = f"ask for the leader epoch of {topic}/{partition}", on_topic("DESCRIBE", topic)
    found = call(what, future.result, client, needed).leader_epoch
    return -1 if found is None else int(found)


def first_from(client: Any, topic: str, partitions: list[int], time_ms: int) -> dict[int, int | None]:
    """Partition -> the first offset in the log whose timestamp is not before a time.

    None where there is none (KIP-79).
    """
    found = _offsets(client, topic, partitions, OffsetSpec.for_timestamp(time_ms), IsolationLevel.READ_UNCOMMITTED)
    return {partition: None if offset < 0 else offset for partition, offset in found.items()}


def _offsets(
    client: Any, topic: str, partitions: list[int], spec: Any, level: IsolationLevel, timeout_s: float = REQUEST_S
) -> dict[int, int]:
    """Offsets that the partitions' leaders report.

    A client that does not know of a change of leaders yet finds them, and asks again.
    """

    def ask() -> dict[int, int]:
        futures = client.list_offsets(
            {TopicPartition(topic, p): spec for p in partitions}, isolation_level=level, request_timeout=timeout_s
        )
        return {where.partition: int(future.result().offset) for where, future in futures.items()}

    again = known_to_all(client, topic, max(partitions, default=0), timeout_s)
    try:
        return again(ask)
    except KafkaException as error:
        check_led(client, topic, error)
        needed = on_topic("DESCRIBE", topic)
        raise translate(error.args[0], f"look up the offsets of {topic}", client, needed) from error
