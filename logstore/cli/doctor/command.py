"""`logstore doctor`: the command."""

from collections.abc import Iterator

import click

from logstore.cli import options, show
from logstore.cli.doctor import brokers, machine, node, tables
from logstore.cli.doctor.check import FAIL, OK, WARN, Check
from logstore.log import topics
from logstore.log.tables.registry import Registry
from logstore.model.errors import LogStoreError, SetupError, UsageError
from logstore.node.addresses import need_bootstrap, need_url
from logstore.process.running_node import running_on
from logstore.settings import Settings

_STYLES = {OK: "green", WARN: "yellow", FAIL: "red"}


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@options.AS_JSON
def doctor(settings: Settings, as_json: bool) -> None:
    """Look for what is wrong with this machine, Kafka, the tables and the node. Exit status 1 when something is."""
    checks = []
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            click.echo(f"{click.style(f'{check.state:4}', fg=_STYLES[check.state])}  {check.what}: {check.found}")
            if check.fix:
                click.echo(f"      -> {check.fix}")
    failed = any(check.state == FAIL for check in checks)
    if as_json:
        show.as_json({"ok": not failed, "checks": [check._asdict() for check in checks]})
    click.get_current_context().exit(1 if failed else 0)


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, one by one. Disk and views are looked at where the node is that runs on them."""
    yield from machine.examine(settings.data_dir if _is_here(settings) else None)
    yield from _kafka(settings)
    yield from node.examine(need_url(settings))


def _is_here(settings: Settings) -> bool:
    """False for the URL of another node than the one that runs on the data directory."""
    if settings.url is None:
        return True
    data_dir = settings.find_data_dir()
    running = None if data_dir is None else running_on(data_dir)
    return running is not None and str(running["url"]).rstrip("/") == settings.url.rstrip("/")


def _kafka(settings: Settings) -> Iterator[Check]:
    address = "logstore doctor --bootstrap HOST:PORT, or --kafka-config FILE"
    try:
        registry = Registry(need_bootstrap(settings))
        count, definitions, slots = topics.replication(registry.admin), registry.read(), registry.slots()
    except UsageError as error:
        yield Check(FAIL if isinstance(error, SetupError) else WARN, "kafka", str(error), address)
        return
    except LogStoreError as error:
        yield Check(FAIL, "kafka", str(error), address)
        return
    there = sorted(table.topic for table in definitions.tables.values() if not table.dropped)
    yield Check(OK, "store", f"{len(there):,} tables, {slots} slots")
    try:
        yield from brokers.examine(registry, count, there)
        yield from tables.examine(registry, definitions, settings.storage, settings.data_dir)
    except LogStoreError as error:  # it answered a moment ago
        yield Check(FAIL, "kafka", str(error), address)
