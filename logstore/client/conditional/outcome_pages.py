"""Outcome pages of the read API: their paths, below that of a table."""

from urllib.parse import quote

from logstore.model.position import Position


def at_position(position: Position) -> str:
    """The outcome of the record that was acknowledged with this position."""
    return f"outcomes/{position.partition}/{position.offset}"


def by_id(key: bytes, mutation_id: bytes) -> str:
    """The outcome of the first record of a row that bears an id."""
    return f"outcomes?key={quote(key, safe='')}&id={mutation_id.hex()}"
