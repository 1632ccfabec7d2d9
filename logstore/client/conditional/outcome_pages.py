"""Outcome pages of the read API: their paths, below that of a table."""

from collections.abc import Sequence
from urllib.parse import quote

from logstore.model.position import Position

LIST = "outcomes:get"  # outcomes of several records of a partition


def at_position(position: Position) -> str:
    """The outcome of the record that was acknowledged with this position."""
    return f"outcomes/{position.partition}/{position.offset}"


def page_of(key: bytes, name: bytes | Position) -> str:
    """The outcome of a record of a row, which its id or its position names."""
    return at_position(name) if isinstance(name, Position) else by_id(key, name)


def by_id(key: bytes, mutation_id: bytes) -> str:
    """The outcome of the first record of a row that bears an id."""
    return f"outcomes?key={quote(key, safe='')}&id={mutation_id.hex()}"


def list_of(partition: int, offsets: Sequence[int]) -> bytes:
    """The body of a request for a `LIST`."""
    import orjson  # noqa: PLC0415 - who writes no conditions does without

    return orjson.dumps({"partition": partition, "offsets": offsets})
