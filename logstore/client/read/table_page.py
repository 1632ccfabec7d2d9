"""Table page: how a table's rows are placed, as a reader tells it in `GET /v1/tables/{table}`."""

from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from logstore.model.errors import BadDefinition
from logstore.model.partitioning.partitioning import Partitioning
from logstore.model.partitioning.splits import check_splits


def partitioning_of(page: Mapping[str, Any]) -> Partitioning | None:
    """The partitioning that the page tells; None when it tells none that can be."""
    partitions, listed = page.get("partitions"), page.get("splits", [])
    if not isinstance(partitions, int) or partitions < 1 or not isinstance(listed, list):
        return None
    try:
        splits = tuple(map(_bytes, listed))
        check_splits(splits, partitions)
    except (BadDefinition, ValueError, TypeError, KeyError):
        return None
    return Partitioning(partitions, splits)


def _bytes(field: Any) -> bytes:
    """The bytes of a field in JSON: of a text, or of {"base64": ...}."""
    return field.encode() if isinstance(field, str) else b64decode(field["base64"], validate=True)
