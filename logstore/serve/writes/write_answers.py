"""Write answers: a write's fate as HTTP tells it.

    acknowledged   200        in the log; a plain put or delete, which nothing decides or refuses
    applied        200, 201   decided, and done; 201 when it made the row (If-None-Match: *). Of a write that nothing
                              decides: at the level `applied`, once it is
    rejected       412        its condition did not hold; `version` is the row's
    invalid        409        it cannot be done, and `reason` says why
    unknown        202        perhaps in the log, or there and not decided, or not known to be applied, by the deadline;
                              `resolve` tells more
    refused        problem    certainly not in the log

A duplicate has the status of the first record with its id. What is said of a write that is in the log has its token.
"""

from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import quote

from logstore.model.errors import LogStoreError
from logstore.model.hard_rows.outcome_facts import OutcomeFacts
from logstore.model.position import Position
from logstore.model.table import Table
from logstore.serve.wire.problems import Problem, problem_of
from logstore.serve.writes.row_record import PUT, RowRecord

_STATUS = {"applied": HTTPStatus.OK, "rejected": HTTPStatus.PRECONDITION_FAILED, "invalid": HTTPStatus.CONFLICT}
_WHY = {
    HTTPStatus.PRECONDITION_FAILED: (
        "condition-failed",
        "the row is not as the write expects it, and was left as it is: read it, and write again with its ETag",
    ),
    HTTPStatus.CONFLICT: (
        "invalid-write",
        "the log holds the write and it changed nothing, since it cannot be done: `reason` says why",
    ),
}
SKIPPED = "skipped"  # reason of a record that every fold steps over
Document = dict[str, Any]


class Fate(NamedTuple):
    """Fate of one write. Without `position` it is not known to be in the log; `doubt`: why it is not decided."""

    record: RowRecord
    position: Position | None = None
    facts: OutcomeFacts | None = None
    doubt: LogStoreError | Problem | None = None
    refusal: LogStoreError | Problem | None = None  # certainly not in the log
    applied: bool = False  # of one that nothing decides: a view has it

    @property
    def status(self) -> HTTPStatus:
        """Status of an answer that tells this write alone."""
        if self.refusal is not None:
            return HTTPStatus(as_problem(self.refusal).status)
        if self.doubt is not None:
            return HTTPStatus.ACCEPTED
        if self.facts is None:
            return HTTPStatus.OK
        status = _STATUS[self.facts["first_outcome"] or self.facts["outcome"]]
        condition = self.record.condition
        makes = self.record.operation == PUT and condition is not None and condition.kind == "absent"
        return HTTPStatus.CREATED if makes and status is HTTPStatus.OK else status

    @property
    def is_done(self) -> bool:
        """True when the write had its effect."""
        return self.status in (HTTPStatus.OK, HTTPStatus.CREATED)

    def etag(self, table: Table) -> str | None:
        """The ETag of the row as this write left it; None where another write's, or an end, decides it."""
        wrote = self.facts is None or self.facts["outcome"] == "applied"
        put = self.record.operation == PUT and self.record.ttl_ms is None
        if not (self.is_done and wrote and put and self.position is not None):
            return None
        return f'"{table.epoch}-{self.position.partition}-{self.position.offset}"'

    def version(self) -> int | None:
        """The row's version: that which it wrote, or, where it was rejected, that which the row has."""
        if self.facts is not None:
            return self.facts["version"]
        written = self.position is not None and self.doubt is None and self.record.value is not None
        return self.position.offset if written and self.position is not None else None


def document_of(fate: Fate, table: Table) -> Document:
    """The fate as a document: of a problem for what had no effect, else of an outcome."""
    if fate.refusal is not None:
        return as_problem(fate.refusal).document()
    facts = _facts(fate, table)
    if fate.status in _WHY:
        word, why = _WHY[fate.status]
        return {**Problem(word, why).document(), **facts}
    return facts


def as_problem(error: LogStoreError | Problem) -> Problem:
    """The problem that an error is."""
    return error if isinstance(error, Problem) else problem_of(error)


def _facts(fate: Fate, table: Table) -> Document:
    known: Document = {"partition": None, "offset": None}
    if fate.position is not None:
        known = {"partition": fate.position.partition, "offset": fate.position.offset}
    known["id"] = None if fate.record.id is None else fate.record.id.hex()
    if fate.doubt is not None:
        return {"outcome": "unknown", **known, **_doubt(fate, table)}
    if fate.facts is None:
        word = "applied" if fate.applied else "acknowledged"
        return {"outcome": word, "version": fate.version(), **known}
    return {**fate.facts, **known}


def _doubt(fate: Fate, table: Table) -> Document:
    """Knowledge of a write that is not decided, and the way to the rest."""
    assert fate.doubt is not None, "asked of one in doubt"
    why = fate.doubt.detail if isinstance(fate.doubt, Problem) else str(fate.doubt)
    record, resolve = fate.record, None
    if record.id is not None:
        resolve = f"/v1/tables/{table.name}/outcomes?key={quote(record.key, safe='')}&id={record.id.hex()}"
    if fate.position is None:
        where = "it may or may not be in the log"
    else:
        where = f"it is in the log, and not known to be {'decided' if record.decided else 'applied'}"
    if resolve is not None:
        step = "`resolve` tells what became of it; sent again with the same LS-Id it has effect once"
    elif fate.position is None:
        step = "read the row before writing it again"
    else:
        step = "do not write it again: a read with the token in this answer sees it"
    return {"detail": f"{where} ({why}); {step}", "resolve": resolve}
