"""Members of a consumer group that are gone, taken out of it at once: Kafka does so when their session has ended."""

import asyncio
from time import monotonic

from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest
from confluent_kafka import KafkaException
from support_wait import until

from logstore.log.kafka.clients import admin

SESSION_S = 6.0  # of our workers
GONE = (0, 25)  # it left; it had left already (UNKNOWN_MEMBER_ID)


def remove_members(bootstrap: str, group: str) -> None:
    """Have all members leave. A broker that has just started has no coordinator yet: it is asked again.

    It is asked for as long as a session lasts, after which they are gone by themselves.
    """
    end_s = monotonic() + SESSION_S

    def nobody_is_left() -> bool:
        try:
            return asyncio.run(_leave(bootstrap, group, _members(bootstrap, group)))
        except (KafkaException, KafkaError):  # of a group that has never been, too
            return monotonic() > end_s

    until(f"nobody is left in group {group}", nobody_is_left)


def _members(bootstrap: str, group: str) -> list[str]:
    described = admin(bootstrap).describe_consumer_groups([group], request_timeout=10)[group].result()
    return [member.member_id for member in described.members]


async def _leave(bootstrap: str, group: str, members: list[str]) -> bool:
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    try:
        await client.bootstrap()
        coordinator = await client.coordinator_lookup(CoordinationType.GROUP, group)
        answers = [
            await client.send(coordinator, LeaveGroupRequest(group, member), group=ConnectionGroup.COORDINATION)
            for member in members
        ]
        return all(answer.error_code in GONE for answer in answers)
    finally:
        await client.close()
