"""Carried edits: those of a row that stand in the log under another row's key, in an edit of several rows."""

from logstore.model.folding.mutation import Headers
from logstore.model.hard_rows.changes.edits import rows_named


def may_name(key: bytes, value: bytes | None) -> bool:
    """False for a value that cannot name the row: a key stands in an edit byte for byte."""
    return value is not None and key in value


def names_row(key: bytes, value: bytes | None, headers: Headers) -> bool:
    """True when a record of another row is an edit that names this one."""
    if value is None or not may_name(key, value) or ("ls.op", b"edit") not in headers:
        return False
    return key in rows_named(value)
