"""Gateway: from checked records to their fates.

    1 check    the log answers, and partitions that have to decide something are not stopped: else nothing is written
    2 append   all records in their order (`log_writer`); the first that is refused ends it, so that none overtakes it
    3 settle   their acknowledgements, until the deadline
    4 learn    what became of those that the log decides, here or from the node that has the partition
    5 reach    where the client asks for it: wait until the others are applied there

From step 2 on every error belongs to a record: what is in the log, or may be, is never answered as if it were not.
"""

import asyncio
from collections.abc import Iterable, Sequence

from logstore.model.errors import LogStoreError, StillPending, Unknown
from logstore.model.hard_rows.outcome_facts import OutcomeFacts, facts_of
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.process.figures import Family, counter, gauge
from logstore.serve.read.consistency import SESSION, Consistency
from logstore.serve.read.consistency_wait import ConsistencyWait
from logstore.serve.read.outcomes import outcomes_at
from logstore.serve.read.peers.fan_out import FanOut
from logstore.serve.read.peers.peer_outcome import PeerOutcome
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import next_offset_of
from logstore.serve.wire.problems import Problem
from logstore.serve.writes.log_writer import Delivery, LogWriter
from logstore.serve.writes.row_record import RowRecord
from logstore.serve.writes.write_answers import SKIPPED, Fate
from logstore.serve.writes.write_level import APPLIED, ONE
from logstore.serve.writes.writes_in_flight import WritesInFlight

_SKIPPED: OutcomeFacts = {
    "outcome": "invalid", "version": None, "reason": SKIPPED, "first": None, "first_outcome": None,
}  # fmt: skip


class Gateway:
    """The way of writes from the pages into the log, and of their outcomes back."""

    def __init__(
        self,
        catalog: Catalog,
        wait: ConsistencyWait,
        fan_out: FanOut,
        writer: LogWriter,
        of_leaders: LogWriter,
        flight: WritesInFlight,
    ) -> None:
        """`of_leaders`: the writer of the level `one`."""
        self._catalog, self._wait, self._fan_out = catalog, wait, fan_out
        self._writer, self._of_leaders, self._flight = writer, of_leaders, flight
        self._closed = False

    def stop(self) -> None:
        """Begin nothing more; what runs goes on."""
        self._closed = True

    async def close(self, timeout_s: float) -> None:
        """Flush what is on its way."""
        await asyncio.gather(self._writer.close(timeout_s), self._of_leaders.close(timeout_s))

    def families(self, labels: dict[str, str]) -> Iterable[Family]:
        """Figures of the writes."""
        for name, text, value in (
            ("logstore_writes_in_flight", "Records without an acknowledgement.", self._flight.records),
            ("logstore_writes_in_flight_bytes", "Bytes of them, and of bodies that arrive.", self._flight.size_bytes),
        ):
            yield gauge(name, text, [(labels, value)])
        counts = self._writer.counts, self._of_leaders.counts
        words = [({**labels, "fate": word}, sum(some[word] for some in counts)) for word in counts[0]]
        yield counter("logstore_writes", "Records written over HTTP, by what the log said.", words)

    def check_answers(self, table: Table, records: Sequence[RowRecord]) -> None:
        """Step 1. Raises Problem, LogStoreError: nothing is written."""
        if self._closed:
            raise Problem("overloaded", "this reader is stopping; ask again, another one answers")
        if self._catalog.reachable is False:
            raise Problem("log-unreachable", "the log does not answer; nothing was written")
        for partition in {record.partition(table) for record in records if record.decided}:
            try:
                next_offset_of(self._catalog.locate(table, partition))
            except Problem as problem:
                if problem.word != "not-owner":
                    raise

    async def write(
        self, table: Table, records: Sequence[RowRecord], level: Consistency, deadline: float
    ) -> list[Fate]:
        """The fates of the records, in their order. Raises Problem, LogStoreError where nothing at all is written."""
        writer = self._of_leaders if records[0].level == ONE else self._writer  # of all: they are of one request
        before = await writer.begin(table, deadline)
        deliveries: list[Delivery] = []
        refusal: Problem | LogStoreError | None = None
        for record in records:
            try:
                deliveries.append(writer.queue(table, record))
            except (Problem, LogStoreError) as error:
                if not deliveries:
                    raise
                refusal = error
                break

        async def settle(record: RowRecord, delivery: Delivery) -> Fate:
            try:
                position = await writer.settled(table, record, delivery, before, deadline)
            except (Unknown, StillPending) as error:
                return Fate(record, doubt=error)
            except LogStoreError as error:
                return Fate(record, refusal=error)
            return Fate(record, position)

        written = await asyncio.gather(*map(settle, records[: len(deliveries)], deliveries))
        fates = await self._applied(table, await self._decided(table, written, level, deadline), level, deadline)
        return [*fates, *(Fate(record, refusal=refusal) for record in records[len(deliveries) :])]

    async def _decided(
        self, table: Table, fates: Sequence[Fate], level: Consistency, deadline: float
    ) -> list[Fate]:  # fmt: skip
        """Step 4: the fates, with what the log has decided."""
        by_partition: dict[int, list[int]] = {}
        for place, fate in enumerate(fates):
            if fate.position is not None and fate.record.decided:
                by_partition.setdefault(fate.position.partition, []).append(place)
        found = list(fates)

        async def learn(partition: int, places: list[int]) -> None:
            offsets = {fates[place].position.offset: place for place in places}  # type: ignore[union-attr]  # see above
            learned = await self._learn(table, partition, list(offsets), level, deadline)
            for offset, place in offsets.items():
                facts = learned[offset] if isinstance(learned, dict) else learned
                one = {"doubt": facts} if isinstance(facts, Problem | LogStoreError) else {"facts": facts}
                found[place] = fates[place]._replace(**one)

        await asyncio.gather(*(learn(partition, places) for partition, places in by_partition.items()))
        return found

    async def _applied(
        self, table: Table, fates: Sequence[Fate], level: Consistency, deadline: float
    ) -> list[Fate]:  # fmt: skip
        """Step 5: the fates of what nothing decides and is to be applied, once it is."""
        by_partition: dict[int, list[int]] = {}
        for place, fate in enumerate(fates):
            if fate.position is not None and fate.record.level == APPLIED and not fate.record.decided:
                by_partition.setdefault(fate.position.partition, []).append(place)
        found = list(fates)

        async def reach(partition: int, places: list[int]) -> None:
            last = max(fates[place].position.offset for place in places)  # type: ignore[union-attr]  # see above
            doubt = await self._reach(table, partition, last, level, deadline)
            for place in places:
                found[place] = fates[place]._replace(applied=doubt is None, doubt=doubt)

        await asyncio.gather(*(reach(partition, places) for partition, places in by_partition.items()))
        return found

    async def _reach(
        self, table: Table, partition: int, offset: int, level: Consistency, deadline: float
    ) -> Problem | LogStoreError | None:
        """Wait until an offset is applied where the partition is served; returns why that is not known."""
        bound = level._replace(name=SESSION, token=Position.of_write(table.epoch, partition, offset))
        try:
            await self._wait.partitions(table, (partition,), bound, deadline)
        except Problem as problem:
            owner = problem.fields.get("owner")
            if problem.word != "not-owner" or not isinstance(owner, str):
                return problem
            try:
                await self._fan_out.reach(table, owner, partition, bound, deadline)
            except Problem as elsewhere:
                return elsewhere
        except LogStoreError as error:
            return error
        return None

    async def _learn(
        self, table: Table, partition: int, offsets: list[int], level: Consistency, deadline: float
    ) -> dict[int, OutcomeFacts | Problem] | Problem | LogStoreError:
        """Outcomes at some offsets; or why they are not known by the deadline."""
        bound = level._replace(name=SESSION, token=Position.of_write(table.epoch, partition, max(offsets)))
        try:
            read = await outcomes_at(self._catalog, self._wait, table, partition, offsets, bound, deadline)
        except Problem as problem:
            owner = problem.fields.get("owner")
            if problem.word != "not-owner" or not isinstance(owner, str):
                return problem
            return await self._ask_owner(table, owner, partition, offsets, bound, deadline)
        except LogStoreError as error:
            return error
        return {
            offset: _ended() if offset in read.ended else _SKIPPED if outcome is None else facts_of(outcome, offset)
            for offset, outcome in read.outcomes.items()
        }

    async def _ask_owner(
        self, table: Table, owner: str, partition: int, offsets: list[int], level: Consistency, deadline: float
    ) -> dict[int, OutcomeFacts | Problem] | Problem:
        """Outcomes from the node that has the partition."""
        try:
            found = await self._fan_out.outcomes(table, owner, partition, offsets, level, deadline)
        except Problem as problem:
            return problem
        return {offset: _facts_of_peer(one) for offset, one in found.items()}


def _facts_of_peer(found: PeerOutcome) -> OutcomeFacts | Problem:
    if found.error is None:
        return found.facts()
    return _SKIPPED if found.error == "not-found" else _ended()


def _ended() -> Problem:
    return Problem("not-retained", "its outcome is no longer remembered")
