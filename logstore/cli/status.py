"""`logstore status`: nodes, tables and partitions, as the nodes themselves describe them."""

import sys
import time
from typing import Any

import click

from logstore.cli import health, options, show
from logstore.client.transport.node_pages import NodePages
from logstore.model.errors import LogStoreError, NoSuchTable, UsageError
from logstore.node.addresses import need_url
from logstore.settings import Settings
from logstore.snapshot.verdicts import PROVED

TIMEOUT_S = 10.0  # it asks the other nodes, which have 3 s
WATCH_S = 2.0
_COLUMNS = ("table", "partition", "group", "state", "applied", "end", "lag")


@click.command()
@options.with_settings("url", "data_dir")
@click.option("--table", "name", metavar="NAME", help="One table.")
@click.option("--unhealthy", is_flag=True, help="Only partitions that are not well.")
@click.option("--check", is_flag=True, help="Exit with 1 when something is not well, and say what; print nothing else.")
@click.option("--watch", is_flag=True, help="Look again every 2 s, until Ctrl-C.")
@options.AS_JSON
def status(
    settings: Settings, name: str | None, unhealthy: bool, check: bool, watch: bool, as_json: bool
) -> int | None:
    """Show nodes, tables and partitions."""
    if check and watch:
        raise UsageError("--check looks once and --watch for ever; give one of them")
    with NodePages(TIMEOUT_S) as pages:
        while True:
            found = _only(gather(pages, need_url(settings)), name, unhealthy=unhealthy)
            if check:
                return _check(found)
            if watch and sys.stdout.isatty():
                click.clear()
            if as_json:
                show.as_json(found)
            else:
                _print(found)
            if not watch:
                return None
            time.sleep(WATCH_S)


def _check(found: dict[str, Any]) -> int:
    """Exit status, and the reasons on stderr."""
    reasons = health.reasons(found)
    for reason in reasons:
        show.warn(reason)
    return 1 if reasons else 0


def _only(found: dict[str, Any], name: str | None, *, unhealthy: bool) -> dict[str, Any]:
    """Rows of what was asked for, of all that was found. Raises NoSuchTable."""
    if name is not None and name not in {table["name"] for table in found["tables"]}:
        raise NoSuchTable(name)
    rows = [row for row in found["partitions"] if name in (None, row["table"])]
    return {
        **found,
        "tables": [table for table in found["tables"] if name in (None, table["name"])],
        "partitions": [row for row in rows if health.is_unhealthy(row)] if unhealthy else rows,
        "schedules": [row for row in found.get("schedules", ()) if name in (None, row["table"])],
    }


def gather(pages: NodePages, url: str) -> dict[str, Any]:
    """State of all nodes, asked through any one of them: its `/v1/status`. Raises ServerUnreachable, LogStoreError."""
    status, document = pages.get(url, "/v1/status")
    if not isinstance(document, dict):
        raise LogStoreError(f"{url}/v1/status is not a page of logstore's; is the URL right?")
    if status == 404:
        raise LogStoreError(f"{url} is of an earlier version than this command and has no /v1/status; upgrade it")
    if status != 200:
        raise LogStoreError(f"{url}/v1/status: {document.get('detail') or status}")
    return {"url": url, **document}


def _print(found: dict[str, Any]) -> None:
    nodes = [
        (
            n["node"],
            n["url"],
            n["group"],
            n["zone"],
            n["workers"],
            len(n["pids"]["readers"]),
            f"{len(n['live'])} of {len(n['slots'])}",
            "now" if n.get("current", True) else f"{n['age_s']:,.0f} s ago",
        )
        for n in found["nodes"]
    ]
    show.table(("node", "url", "group", "zone", "workers", "readers", "slots live", "heard"), nodes)
    if found["tables"]:
        click.echo()
        show.table(
            (*_COLUMNS, "snapshot", "adoption", "reason"),
            [
                (*(row[name] for name in _COLUMNS), *_snapshot(row.get("snapshot")), row["reason"])
                for row in found["partitions"]
            ],
        )
    _print_schedules(found["schedules"])
    for row in found["partitions"]:
        snapshot = row.get("snapshot") or {}
        if snapshot.get("state") == "refused":
            show.warn(
                f"warning: {row['table']}/{row['partition']} refuses snapshot {snapshot['candidate']}: "
                f"{snapshot['reason']}"
            )
        elif snapshot.get("proof", PROVED) != PROVED:
            show.warn(f"warning: {row['table']}/{row['partition']} is {snapshot['proof']}: {snapshot['reason']}")
    for table in found["tables"]:
        for reason, count in table["quarantined"].items():
            where = f"{found['url']}/v1/tables/{table['name']}/quarantine"
            show.warn(f"warning: table {table['name']}: {count:,} records are in quarantine ({reason}); see {where}")
    for node in found["silent"]:
        show.warn(f"warning: node {node['node']}: {node['error']}")
    if found["log"] and found["log"]["reachable"] is False:
        show.warn("warning: the node cannot reach Kafka: what it serves does not advance")
    if found["log"] and found["log"].get("clock_ahead_s"):
        ahead_s = found["log"]["clock_ahead_s"]
        show.warn(
            f"warning: the node's clock is {ahead_s:,.0f} s ahead of the brokers': its rows end by log time alone"
        )


def _print_schedules(rows: list[dict[str, Any]]) -> None:
    """Scheduled compactions: of a table one line, and how it went."""
    if rows:
        from logstore.cli import compactions  # noqa: PLC0415 - only who needs it waits for its import

        click.echo()
        show.table(("table", "compacted", "next"), [(row["table"], *compactions.words(row)) for row in rows])


def _snapshot(row: dict[str, Any] | None) -> tuple[str, str]:
    """Snapshot that a partition stands on with its cut, and what is done about the next one."""
    if row is None:
        return "", ""
    base = "" if row["base"] is None else f"{row['base']} @ {row['cut']:,}"
    if row["proof"] != PROVED:
        base += f" ({row['proof']})"
    if row["state"] == "fetching" and row["total_bytes"]:
        return base, f"fetching {row['fetched_bytes'] / row['total_bytes']:.0%}"
    return base, row["state"]
