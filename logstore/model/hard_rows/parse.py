"""Parse: what a record of the log means in a table of these rules, hard or plain."""

from functools import lru_cache

from logstore.model.folding.mutation import (
    BAD_TTL,
    MALFORMED_HEADER,
    UNKNOWN_OPERATION,
    Control,
    Headers,
    KeyedRecord,
    Quarantined,
    Refused,
    sort_out,
)  # fmt: skip
from logstore.model.folding.terms import Condition, Terms, content_digest, short_content_digest
from logstore.model.hard_rows.changes.edits import names_rows, names_ttl
from logstore.model.hard_rows.fold_rows import RowMutation
from logstore.model.hard_rows.rules import Rules
from logstore.model.key import MAX_KEY_BYTES

_QUICK = {b"put": "put", b"incr": "incr", b"append": "append"}
_QUICK_HEADERS = frozenset({"ls.op", "ls.id", "ls.if"})
_new = tuple.__new__  # of a NamedTuple, without a frame of its own
_condition = lru_cache(maxsize=1_024)(Condition.parse)


def parse_hard(
    key: bytes | None, value: bytes | None, headers: Headers, rules: Rules, *, is_here: bool | None = None
) -> RowMutation | Control | Quarantined | Refused:
    """Parse a record of the partition that `rules` name.

    `is_here`: whether its key belongs to that partition, where that is known.
    """
    place = rules.place
    if is_here and key and value is not None and len(value) <= place.max_value_bytes:
        quick = _parse_quick(key, value, headers)
        if quick is not None:
            return quick
    record = sort_out(
        key, value, headers, max_value_bytes=place.max_value_bytes,
        right_partition=place.is_here,
    )  # fmt: skip
    if not isinstance(record, KeyedRecord):
        return record
    reason = _against(record, rules)
    if reason is not None:
        return Quarantined(reason)
    terms = Terms.of(record.headers)
    content = b"" if terms.id is None else content_digest(record.operation, record.headers, record.value)
    return RowMutation(record.operation, record.key, record.value, terms, content)


def _parse_quick(key: bytes, value: bytes, headers: Headers) -> RowMutation | None:
    """A record of the commonest forms, whose key and value are right; None where more is to be looked at."""
    if len(headers) == 2 and headers[0][0] == "ls.id" and headers[1][0] == "ls.op":  # as our clients write them
        (_, mutation_id), (_, word) = headers
        operation = _QUICK.get(word or b"")
        if operation is None or mutation_id is None or len(mutation_id) != 16 or len(key) > MAX_KEY_BYTES:
            return None
        content = short_content_digest(operation, None, value)
        return _new(RowMutation, (operation, key, value, _new(Terms, (mutation_id, None, None, None)), content))
    named = dict(headers)
    operation = _QUICK.get(named.get("ls.op") or b"put")
    if (
        operation is None
        or len(key) > MAX_KEY_BYTES
        or len(named) != len(headers)
        or not named.keys() <= _QUICK_HEADERS
    ):
        return None
    mutation_id, raw = named.get("ls.id"), named.get("ls.if")
    if (mutation_id is None and "ls.id" in named) or (raw is None and "ls.if" in named):
        return None
    condition = None if raw is None else _condition(raw)
    if (raw is not None and condition is None) or (mutation_id is not None and len(mutation_id) != 16):
        return None
    content = b"" if mutation_id is None else short_content_digest(operation, raw, value)
    return _new(RowMutation, (operation, key, value, _new(Terms, (mutation_id, condition, None, None)), content))


def _against(record: KeyedRecord, rules: Rules) -> str | None:
    """The reason for which a record cannot be right in this table, though it is in another."""
    if "ls.seen" in record.headers and not rules.keeps_siblings:
        return MALFORMED_HEADER
    edits = record.value if record.operation == "edit" else None
    if not (rules.by_broker_time and rules.expiring) and (
        "ls.ttl" in record.headers or (edits is not None and names_ttl(edits))
    ):
        return BAD_TTL
    return UNKNOWN_OPERATION if edits is not None and not rules.multi_row and names_rows(edits) else None
