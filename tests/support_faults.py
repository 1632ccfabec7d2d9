"""A real store that faults are done to, asked from outside."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from support_log import until
from support_store import Running, cli, running

from logstore.model.partitioner import partition_of

DEV = ("--http", "127.0.0.1:0", "--writes", "--kafka-heap-mb", "256")


@contextmanager
def hardy_store(data_dir: Path) -> Iterator[Running]:
    with running("dev", data_dir, *DEV) as dev:
        yield dev


def create(store: Running, name: str, *more: str, partitions: int = 2) -> str:
    cli("table", "create", name, "--partitions", str(partitions), *more, **addresses(store))
    return name


def addresses(store: Running) -> dict[str, str]:
    return {"LOGSTORE_BOOTSTRAP": store.bootstrap, "LOGSTORE_URL": store.url}


def get(url: str, path: str, **params: Any) -> httpx.Response:
    return httpx.get(url + path, params=params, trust_env=False, timeout=60)


def key_of(partition: int, partitions: int = 2) -> str:
    return next(key for key in map(str, range(1000)) if partition_of(key.encode(), partitions) == partition)


def standing_of(store: Running, table: str, partition: int) -> dict[str, Any]:
    rows = get(store.url, "/v1/partitions").json()["partitions"]
    return next(row for row in rows if (row["table"], row["partition"]) == (table, partition))


def await_no_lag(store: Running, table: str) -> None:
    def standing() -> list[tuple[str, int, str]]:
        rows = get(store.url, "/v1/partitions").json()["partitions"]
        return [(row["state"], row["lag"], row["reason"]) for row in rows if row["table"] == table]

    until("no lag", lambda: standing() == [("live", 0, "")] * 2)
