"""Parse: what a record of the log means in a table of these rules, hard or plain."""

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
from logstore.model.folding.terms import Terms, content_digest
from logstore.model.hard_rows.edits import names_rows, names_ttl
from logstore.model.hard_rows.fold_rows import RowMutation
from logstore.model.hard_rows.rules import Rules
from logstore.model.partitioner import partition_of


def parse_hard(
    key: bytes | None, value: bytes | None, headers: Headers, rules: Rules
) -> RowMutation | Control | Quarantined | Refused:
    """Parse a record of the partition that `rules` name."""
    place = rules.place
    record = sort_out(
        key, value, headers, max_value_bytes=place.max_value_bytes,
        right_partition=lambda key: partition_of(key, place.partitions) == place.partition,
    )  # fmt: skip
    if not isinstance(record, KeyedRecord):
        return record
    reason = _against(record, rules)
    if reason is not None:
        return Quarantined(reason)
    terms = Terms.of(record.headers)
    content = b"" if terms.id is None else content_digest(record.operation, record.headers, record.value)
    return RowMutation(record.operation, record.key, record.value, terms, content)


def _against(record: KeyedRecord, rules: Rules) -> str | None:
    """The reason for which a record cannot be right in this table, though it is in another."""
    if "ls.seen" in record.headers and not rules.keeps_siblings:
        return MALFORMED_HEADER
    edits = record.value if record.operation == "edit" else None
    if not rules.by_broker_time and ("ls.ttl" in record.headers or (edits is not None and names_ttl(edits))):
        return BAD_TTL
    return UNKNOWN_OPERATION if edits is not None and not rules.multi_row and names_rows(edits) else None
