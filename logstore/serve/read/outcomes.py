"""Outcome pages: what became of a conditional write, by where its record stands in the log, or by its id.

    GET /v1/tables/{table}/outcomes/{partition}/{offset}    waits until that offset has been applied
    GET /v1/tables/{table}/outcomes?key=&id=                at the levels of reads
    POST /v1/tables/{table}/outcomes:get                    up to 1,000 of a partition, once all have been applied

An outcome is decided by the log alone, so every reader gives the same. One that is older than the dedup window is 410;
in a list it is an entry with that word for its error, as is one that is not there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from logstore.model.hard_rows.outcome_facts import facts_of
from logstore.model.hard_rows.outcomes import Outcome
from logstore.model.key import check_key
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.read.consistency import EVENTUAL, PARAMS, SESSION, Consistency, read_level
from logstore.serve.read.consistency_wait import ConsistencyWait, answer_token, deadline_of
from logstore.serve.read.encoding import encode, negotiate
from logstore.serve.read.merged_read import Floor, check_floor
from logstore.serve.read.parameters.offset_list import MAX_OFFSET, read_offsets
from logstore.serve.read.parameters.row_key import encoded
from logstore.serve.state.catalog import Catalog
from logstore.serve.state.partition import ServedPartition
from logstore.serve.wire import media_types
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request, integer, text
from logstore.serve.wire.response import Headers, Response
from logstore.view.conditional.decisions import DecisionReading
from logstore.view.reader import Reading

_LEVELS = PARAMS - {"as_of"}
_BY_ID = _LEVELS | {"key", "id", "key_encoding"}
_OFFERS = (media_types.JSON, media_types.MSGPACK)
_ID_BYTES = 16


class OutcomesRead(NamedTuple):
    """Outcomes of records of one partition, by offset, at one committed state.

    None: the record has none, or, where its offset is in `ended`, it is no longer remembered.
    """

    outcomes: Mapping[int, Outcome | None]
    ended: frozenset[int]


async def outcomes_at(
    catalog: Catalog, wait: ConsistencyWait, table: Table, partition: int, offsets: Sequence[int],
    level: Consistency, deadline: float,
) -> OutcomesRead:  # fmt: skip
    """The outcomes at some offsets, as soon as what `level` names is applied. Raises Problem."""

    def read(floor: Floor) -> OutcomesRead:
        served = catalog.locate(table, partition)
        with served.open().reading() as reading:
            _, decisions = _standing(served, reading, floor)
            found = decisions.outcomes(list(offsets))
            ended = frozenset(offset for offset in offsets if offset not in found and decisions.has_ended(offset))
        return OutcomesRead({o: found[o].outcome if o in found else None for o in offsets}, ended)

    return await wait.read(table, (partition,), level, deadline, read)


class OutcomePages:
    """The pages of outcomes."""

    def __init__(self, catalog: Catalog, consistency_wait: ConsistencyWait) -> None:
        self._catalog, self._consistency_wait = catalog, consistency_wait

    async def at(self, request: Request, name: str, place: bytes) -> Response:
        """Answer with the outcome of the record at `place`, which is partition/offset."""
        level = _level(request, request.params(_LEVELS))
        deadline = deadline_of(level)
        table = _conditional(await self._consistency_wait.table(name, level, deadline))
        partition, offset = _place(place, table)
        level = _reaching(level, table, partition, offset)

        def read(floor: Floor) -> tuple[ServedPartition, int, Outcome | None, bool]:
            served = self._catalog.locate(table, partition)
            with served.open().reading() as reading:
                next_offset, decisions = _standing(served, reading, floor)
                found = decisions.outcome(offset)
                ended = found is None and decisions.has_ended(offset)
            return served, next_offset, found and found.outcome, ended

        served, next_offset, outcome, ended = await self._consistency_wait.read(
            table, (partition,), level, deadline, read
        )
        head = _head(served, next_offset, level)
        if ended:
            raise _not_retained(table, partition, offset, head)
        if outcome is None:
            detail = (
                f"the record at offset {offset:,} of partition {partition} has no outcome: it is a plain put or delete,"
                " one that was skipped (see the table's quarantine), or none of a row"
            )
            raise Problem("not-found", detail, headers=head, table=table.name, partition=partition, offset=offset)
        return _answer(served, outcome, offset, next_offset, level)

    async def many(self, request: Request, name: str) -> Response:
        """Answer with the outcomes of records of one partition, in the order of the request."""
        level = _level(request, request.params(_LEVELS))
        media_type = negotiate(request, _OFFERS)
        partition, offsets = await read_offsets(request)
        deadline = deadline_of(level)
        table = _conditional(await self._consistency_wait.table(name, level, deadline))
        partition = integer(str(partition), "partition", 0, table.partitions - 1)
        level = _reaching(level, table, partition, max(offsets))

        def read(floor: Floor) -> tuple[ServedPartition, int, list[dict[str, Any]]]:
            served = self._catalog.locate(table, partition)
            with served.open().reading() as reading:
                next_offset, decisions = _standing(served, reading, floor)
                return served, next_offset, _entries(decisions, offsets)

        served, next_offset, found = await self._consistency_wait.read(table, (partition,), level, deadline, read)
        head = _head(served, next_offset, level)
        document = {"partition": partition, "outcomes": found, "token": dict(head)[b"ls-token"].decode()}
        answer = encode(media_type, lambda _: document)
        answer.headers.extend(head)
        return answer

    async def by_id(self, request: Request, name: str) -> Response:
        """Answer with the outcome of the first record of a row that bears an id."""
        params = request.params(_BY_ID)
        level = _level(request, params)
        key, mutation_id = _named(params)
        deadline = deadline_of(level)
        table = _conditional(await self._consistency_wait.table(name, level, deadline))
        partition = table.partitioning.of(key)

        def read(floor: Floor) -> tuple[ServedPartition, int, tuple[Outcome, int] | None]:
            served = self._catalog.locate(table, partition)
            with served.open().reading() as reading:
                next_offset, decisions = _standing(served, reading, floor)
                found = decisions.ids([(key, mutation_id)]).get((key, mutation_id))
            return served, next_offset, found and (found.outcome, found.first)

        served, next_offset, found = await self._consistency_wait.read(table, (partition,), level, deadline, read)
        if found is None:
            detail = (
                "no record of this row has borne this id within the dedup window, as far as this reader has applied the"
                " log"
            )
            head = _head(served, next_offset, level)
            raise Problem("not-found", detail, headers=head, table=table.name, partition=partition)
        return _answer(served, *found, next_offset, level)


def _level(request: Request, params: dict[str, bytes]) -> Consistency:
    level = read_level(request, params)
    if level.as_of is not None:
        raise Problem(
            "bad-request", "an outcome never changes while it is remembered: leave as_of away", parameter="as_of"
        )
    return level


def _reaching(level: Consistency, table: Table, partition: int, offset: int) -> Consistency:
    """The level, which waits until the record at `offset` has been applied, too."""
    return level._replace(
        name=SESSION if level.name == EVENTUAL else level.name,
        token=level.token | Position.of_write(table.epoch, partition, offset),
    )


def _entries(decisions: DecisionReading, offsets: list[int]) -> list[dict[str, Any]]:
    """Entries of a list of outcomes. Raises Corrupted, NotYet."""
    found = decisions.outcomes(offsets)
    entries: list[dict[str, Any]] = []
    for offset in offsets:
        remembered = found.get(offset)
        if remembered is not None:
            entries.append({"offset": offset, **facts_of(remembered.outcome, offset)})
        else:
            word = "not-retained" if decisions.has_ended(offset) else "not-found"
            entries.append({"offset": offset, "error": word})
    return entries


def _conditional(table: Table) -> Table:
    if not table.conditional:
        raise Problem(
            "bad-request", f"table {table.name!r} takes no conditional writes and remembers no outcomes; `logstore "
            "table create NAME --conditional` makes one that does", table=table.name, conditional=False,
        )  # fmt: skip
    return table


def _place(place: bytes, table: Table) -> tuple[int, int]:
    raw_partition, slash, raw_offset = place.partition(b"/")
    if not slash:
        raise Problem("bad-request", "an outcome is asked for by partition and offset: outcomes/{partition}/{offset}")
    partition = integer(raw_partition.decode("latin-1"), "partition", 0, table.partitions - 1)
    return partition, integer(raw_offset.decode("latin-1"), "offset", 0, MAX_OFFSET)


def _named(params: dict[str, bytes]) -> tuple[bytes, bytes]:
    if "key" not in params or "id" not in params:
        raise Problem("bad-request", "an outcome is asked for by a row's key and the id of a write: ?key=...&id=...")
    mutation_id = read_mutation_id(text(params["id"], "id"))
    return check_key(encoded(params["key"], params)), mutation_id


def read_mutation_id(digits: str) -> bytes:
    """The id of a write, from hexadecimal digits. Raises Problem."""
    try:
        found = bytes.fromhex(digits)
    except ValueError:
        found = b""
    if len(found) != _ID_BYTES or len(digits) != 2 * _ID_BYTES:
        raise Problem("bad-request", f"the id of a write is {2 * _ID_BYTES} hexadecimal digits", parameter="id")
    return found


def _standing(served: ServedPartition, reading: Reading, floor: Floor) -> tuple[int, DecisionReading]:
    """Next offset and decisions of one committed state. Raises Problem, FellBehind."""
    next_offset = served.next_offset(reading.raw_state)
    check_floor(served, next_offset, floor)
    decisions = reading.decisions
    assert decisions is not None, "the view of a conditional table has them"
    return next_offset, decisions


def _head(served: ServedPartition, next_offset: int, level: Consistency) -> Headers:
    token = answer_token(level, served.epoch, {served.partition: next_offset})
    lag = served.lag(next_offset)
    return [
        (b"ls-partition", b"%d" % served.partition),
        (b"ls-applied", b"%d" % next_offset),
        *([] if lag is None else [(b"ls-lag", b"%d" % lag)]),
        (b"ls-token", token.encode()),
    ]


def _answer(served: ServedPartition, outcome: Outcome, offset: int, next_offset: int, level: Consistency) -> Response:
    head = _head(served, next_offset, level)
    token = answer_token(level, served.epoch, {served.partition: next_offset})
    body = orjson.dumps(
        {**facts_of(outcome, offset), "partition": served.partition, "offset": offset, "token": token}
    )  # fmt: skip
    framing = (b"content-type", media_types.JSON.encode()), (b"content-length", b"%d" % len(body))
    return Response(200, [*framing, *head], body)


def _not_retained(table: Table, partition: int, offset: int, head: Headers) -> Problem:
    return Problem(
        "not-retained", f"what became of the record at offset {offset:,} of partition {partition} is no longer "
        f"remembered: outcomes last {table.dedup_window_ms:,} ms of the log's time, and the newest "
        f"{table.dedup_records:,} of a partition; read the row", headers=head,
        table=table.name, partition=partition, offset=offset,
    )  # fmt: skip
