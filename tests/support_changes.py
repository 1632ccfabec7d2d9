"""Consumers of the change feed, by long poll and by stream, that keep a copy of the table."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgpack
import orjson


class Copy:
    """A table's rows as a consumer has them that keeps, of each key, the change of the highest version."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[int, bytes | None]] = {}
        self.changes = self.resets = 0

    def take(self, event: dict[str, Any]) -> None:
        if event["event"] == "reset":
            self.rows.clear()
            self.resets += 1
            return
        self.changes += 1
        key, version = event["key"], event["version"]
        if key not in self.rows or self.rows[key][0] <= version:
            self.rows[key] = version, event.get("value")

    @property
    def state(self) -> dict[bytes, bytes]:
        return {key: value for key, (_, value) in self.rows.items() if value is not None}


class Poller:
    """A consumer by long polls, which holds nothing but the point where it stands."""

    def __init__(self, url: str, table: str, since: str = "beginning", **params: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self.path, self.since, self.params = f"/v1/tables/{table}/changes", since, params
        self.live = False
        self.copy = Copy()

    def answer(self, wait_ms: int = 0) -> httpx.Response:
        params = {"since": self.since, "wait": str(wait_ms), **self.params}
        return self.http.get(self.path, params=params, headers={"accept": "application/msgpack"})

    def poll(self, wait_ms: int = 0) -> list[dict[str, Any]]:
        answer = self.answer(wait_ms)
        assert answer.status_code == 200, answer.text
        page = msgpack.unpackb(answer.content)
        self.since, self.live = page["next"], page["live"]
        for event in page["events"]:
            self.copy.take(event)
        events: list[dict[str, Any]] = page["events"]
        return events

    def close(self) -> None:
        self.http.close()


def events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Server-sent events as (event, data, last id); an id alone, or a comment, as ("", {}, last id)."""
    name, data, last = "", "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
        elif field == "id":
            last = value
        elif not line:
            yield name, orjson.loads(data) if data else {}, last
            name, data = "", ""


def raw(event: dict[str, Any]) -> dict[str, Any]:
    """An event of a stream with bytes, as msgpack has them. Requires: keys and values are text."""
    return {**event, "key": event["key"].encode(), "value": None if event["value"] is None else event["value"].encode()}
