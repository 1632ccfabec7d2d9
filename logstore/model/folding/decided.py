"""Decided: outcomes and ids that a run of records of a conditional table adds to the state, encoded.

The bytes are `logstore.model.hard_rows.encoding`'s; a view stores them, nobody needs to look into them on the way.
"""

from typing import NamedTuple

RowId = tuple[bytes, bytes]  # row key, mutation id


class Decided(NamedTuple):
    """Outcomes by offset, the ids that came, and how many outcomes the partition has counted.

    `revision`: that of the rules in force behind them (`logstore.model.rules.rules_revision`).
    """

    outcomes: dict[int, bytes]
    ids: dict[RowId, bytes]
    counter: int
    revision: int = 0
