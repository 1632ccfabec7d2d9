"""Node adoptions: how far a node is with a table's snapshots, from its `/v1/snapshots`."""

import httpx

from logstore.model.table import Table
from logstore.view.feed.adoption_records import AdoptionRecord
from logstore.view.feed.fields import UnreadableRecord

ASK_S, AGAIN_S = 5.0, 0.2  # for one answer; between two questions


def adoptions_at(url: str, table: Table) -> dict[int, AdoptionRecord]:
    """Adoption by partition, of the table's partitions that the node at `url` serves.

    One that does not answer, or says what cannot be read, serves none.
    """
    return asked_at(url, table) or {}


def asked_at(url: str, table: Table) -> dict[int, AdoptionRecord] | None:
    """Adoptions as of `adoptions_at`; None: the node does not answer, or says what cannot be read."""
    try:
        answer = httpx.get(f"{url}/v1/snapshots", timeout=ASK_S, trust_env=False)
        rows = answer.raise_for_status().json()["snapshots"]
        return {
            row["partition"]: AdoptionRecord.decode({**row, "digests": [_digest(**one) for one in row["digests"]]})
            for row in rows
            if (row["table"], row["epoch"]) == (table.name, table.epoch)
        }
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, UnreadableRecord):
        return None


def _digest(cut: int, digest: str, entries: int, **_later: object) -> tuple[int, str, int]:
    return cut, digest, entries
