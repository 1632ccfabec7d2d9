"""Delivery: what an error of the producer says about the record: certainly not in the log, or nobody knows.

    never sent, refused before the append   WriteFailed, retriable when the cause passes
    sent, and no or a late answer           Unknown
    the local queue is full                 Overloaded

Only codes that prove the absence count as failed; every other one, a new one too, is unknown. A broker's refusal proves
nothing about an earlier attempt of the same record whose answer was lost, so only refusals that every attempt would
have met are in the list. Neither does a purge of the local queue: a record waits there between two attempts too.
"""

from typing import Any

from confluent_kafka import KafkaError

from logstore.log.connect.access import Access
from logstore.log.connect.acl import topic as on_topic
from logstore.model.errors import LogStoreError, Overloaded, Unknown, WriteDenied, WriteFailed

_REFUSED = {
    KafkaError.MSG_SIZE_TOO_LARGE: (
        "the topic takes no such record: its max.message.bytes is too small (`logstore doctor` names the setting), or "
        "another table was "
        "promoted over this one since this client asked for its definition: it asks again for the next write"
    ),
    KafkaError.INVALID_RECORD: "the topic refuses the record; `logstore doctor` names the setting",
    KafkaError.INVALID_MSG: "the broker refuses the record as malformed",
}
_GONE = (
    "the topic or partition does not exist (any more): the next write asks for the definition again; `logstore doctor` "
    "compares both"
)
_HINTS = {
    KafkaError._UNKNOWN_TOPIC: _GONE,
    KafkaError._UNKNOWN_PARTITION: _GONE,
    KafkaError.UNKNOWN_TOPIC_OR_PART: _GONE,
}


def delivery_error(error: Any, topic: str, access: Access) -> LogStoreError:
    """The typed error of one failed delivery (a `KafkaError`) to a topic, of a client with that access."""
    code, text = error.code(), error.str()
    if not error.fatal() and (lacks := access.lacks(code, on_topic("WRITE", topic))) is not None:
        return WriteDenied(access.denial("the write was refused", lacks))
    if code == KafkaError._QUEUE_FULL:
        return queue_full()
    if code in _REFUSED:
        return WriteFailed(f"the write was refused ({text}): {_REFUSED[code]}")
    step = hint(error) or "read the row before writing it again"
    if access.denies_writes:
        step = f"{access.denial('nothing more is written', on_topic('WRITE', topic))}; {step}"
    return Unknown(f"no acknowledgement came ({text}): the write may or may not be in the log; {step}")


def hint(error: Any) -> str:
    """Advice for the cause of a failure, where there is some."""
    return _HINTS.get(error.code(), "")


def unproved() -> Unknown:
    """The error of a write that is reported as acknowledged without an offset.

    librdkafka concludes so when a later batch of the partition was acknowledged. Where a broker refuses a producer's
    first batch (it does not lead the partition yet) and takes the second one, which was on its way already, that
    conclusion is wrong.
    """
    return Unknown(
        "Kafka acknowledged a later write of the same partition and said nothing of this one: it may or may not be in "
        "the log; read the "
        "row before writing it again"
    )


def queue_full() -> Overloaded:
    """The local queue has no room."""
    return Overloaded(
        "the queue of unacknowledged writes is full; write slower, enlarge queue_records or queue_bytes, or use "
        'on_full="wait"'
    )
