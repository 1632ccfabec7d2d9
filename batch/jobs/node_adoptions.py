"""Node adoptions: how far a node is with a table's snapshots, from its `/v1/snapshots`.

Who waits for it waits as long as it goes on (`until_still`): a digest of a large partition takes its time.
"""

from collections.abc import Callable, Hashable
from typing import TypeVar

import httpx
from tenacity import Retrying, retry_if_result, wait_fixed

from logstore.model.table import Table
from logstore.node import node_page
from logstore.process.progress import Patience
from logstore.view.feed.adoption_records import AdoptionRecord
from logstore.view.feed.fields import UnreadableRecord

ASK_S, AGAIN_S = 5.0, 0.2  # for one answer; between two questions

Reached = dict[Hashable, int]  # how far each piece of a node's work has come
T = TypeVar("T")


def adoptions_at(url: str, table: Table) -> dict[int, AdoptionRecord]:
    """Adoption by partition, of the table's partitions that the node at `url` serves.

    One that does not answer, or says what cannot be read, serves none.
    """
    return asked_at(url, table) or {}


def asked_at(url: str, table: Table) -> dict[int, AdoptionRecord] | None:
    """Adoptions as of `adoptions_at`; None: the node does not answer, or says what cannot be read."""
    try:
        answer = node_page.ask(f"{url}/v1/snapshots", ASK_S)
        rows = answer.raise_for_status().json()["snapshots"]
        return {
            row["partition"]: AdoptionRecord.decode({**row, "digests": [_digest(**one) for one in row["digests"]]})
            for row in rows
            if (row["table"], row["epoch"]) == (table.name, table.epoch)
        }
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError, UnreadableRecord):
        return None


def reached(url: str, partition: int, adoption: AdoptionRecord) -> Reached:
    """Progress of a node with a partition: what is under way, its newest digest, and the cut that it serves from."""
    newest = max((one.cut for one in adoption.digests), default=-1)
    return {
        (url, partition, adoption.candidate, adoption.work): adoption.worked,
        (url, partition, "digest at"): newest,
        (url, partition, "serves from"): -1 if adoption.cut is None else adoption.cut,
    }


def until_still(look: Callable[[Reached], T], is_open: Callable[[T], bool], patience: Patience) -> T:
    """Answer of a look, once it is not open any more, or nothing has come further for as long as the patience lasts.

    `look` adds to what it is given how far everybody has come.
    """

    def ask() -> T:
        seen: Reached = {}
        found = look(seen)
        patience.saw(seen)
        return found

    asking = Retrying(
        retry=retry_if_result(is_open), stop=lambda _: patience.is_over(), wait=wait_fixed(AGAIN_S),
        retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
    )  # fmt: skip
    found: T = asking(ask)
    return found


def _digest(cut: int, digest: str, entries: int, **_later: object) -> tuple[int, str, int]:
    return cut, digest, entries
