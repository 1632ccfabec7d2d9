"""Health: reasons for which a store is not well, of what its nodes say of themselves (`logstore status --check`)."""

from typing import Any

_WHY = {
    "stopped": "it answers nothing",
    "unserved": "no node that is alive serves it",
    "catching-up": "it is not at the end of its log",
}


def is_unhealthy(row: dict[str, Any]) -> bool:
    """True for a partition that is not served as it should be, or whose snapshot is refused."""
    return row["state"] in _WHY or _is_held_up(row) or (row.get("snapshot") or {}).get("state") == "refused"


def _is_held_up(row: dict[str, Any]) -> bool:
    """True for one that is live, and does not advance."""
    return row["state"] == "live" and bool(row["reason"])


def reasons(found: dict[str, Any]) -> list[str]:
    """Reasons, one line each; empty: all is well. `found`: as of `logstore.cli.status.gather`."""
    lines = [f"node {node['node']}: {node['error']}" for node in found["silent"]]
    reachable = (found["log"] or {}).get("reachable")
    if reachable is False:
        lines.append("Kafka does not answer: what is served does not advance")
    elif not found["nodes"]:
        lines.append("no worker of any node is there")
    ahead_s = (found["log"] or {}).get("clock_ahead_s")
    if ahead_s is not None:
        lines.append(f"the clock of the node is {ahead_s:,.0f} s ahead of the brokers': its rows end by log time alone")
    said = (
        found["partitions"] if reachable is not False else [one for one in found["partitions"] if not _is_held_up(one)]
    )
    return lines + [_of(row) for row in said if is_unhealthy(row)]


def _of(row: dict[str, Any]) -> str:
    where = f"{row['table']}/{row['partition']}"
    if row["state"] in _WHY or _is_held_up(row):
        return f"{where} is {row['state']}: {row['reason'] or _WHY[row['state']]}"
    snapshot = row["snapshot"]
    return f"{where} refuses snapshot {snapshot['candidate']}: {snapshot['reason']}"
