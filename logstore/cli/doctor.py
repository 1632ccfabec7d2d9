"""`logstore doctor`: looks for what is wrong with this machine, Kafka and the tables, and says what to do about it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from logstore.broker.jars import VERSION, cache_dir
from logstore.broker.java import find_java
from logstore.cli import options, show
from logstore.cli.version import versions
from logstore.client.transport.node_pages import NodePages
from logstore.log import topics
from logstore.log.kafka.descriptions import describe
from logstore.log.tables import repairs
from logstore.log.tables.registry import Definitions, Registry
from logstore.log.write.librdkafka import agrees_on_murmur2
from logstore.model.errors import LogStoreError, SetupError, UsageError
from logstore.model.table import TABLES_TOPIC
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings
from logstore.view.paths import boot_id

LOW_DISK_BYTES = 5 << 30
_TIMEOUT_S = 5.0
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


class Check(NamedTuple):
    """Result of one check. `state`: ok, warn or fail."""

    state: str
    what: str
    found: str


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@options.AS_JSON
def doctor(settings: Settings, as_json: bool) -> None:
    """Look for what is wrong with this machine, Kafka and the tables. Exit status 1 when something is."""
    checks = []
    for check in examine(settings):
        checks.append(check)
        if not as_json:
            click.echo(f"{click.style(f'{check.state:4}', fg=_STYLES[check.state])}  {check.what}: {check.found}")
    failed = any(check.state == "fail" for check in checks)
    if as_json:
        show.as_json({"ok": not failed, "checks": [check._asdict() for check in checks]})
    click.get_current_context().exit(1 if failed else 0)


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, one by one."""
    yield Check("ok", "versions", ", ".join(f"{name} {number}" for name, number in versions().items()))
    yield _checked("librdkafka", _librdkafka)
    yield _checked("java", lambda: f"{find_java().path} (release {find_java().release})", broken="warn")
    yield _jars()
    yield _checked("boot id", lambda: f"{boot_id()}: views written before this boot without sync are rebuilt")
    yield _disk(settings.data_dir)
    yield from _views(settings.data_dir)
    yield from _kafka(settings)
    yield _node(settings)


def _checked(what: str, look: Callable[[], str], broken: str = "fail") -> Check:
    try:
        return Check("ok", what, look())
    except (LogStoreError, OSError) as error:
        return Check(broken, what, str(error))


def _librdkafka() -> str:
    return (
        "murmur2 agrees with Kafka's Java client"
        if agrees_on_murmur2()
        else "cannot be asked for its partitioner; writes are checked"
    )


def _jars() -> Check:
    folder = cache_dir() / f"kafka-{VERSION}"
    if (folder / "verified.json").exists():
        return Check("ok", "cache", f"Kafka {VERSION} is in {folder}")
    return Check("warn", "cache", f"Kafka {VERSION} is not in {folder} yet; `logstore dev` fetches it (43 MB)")


def _disk(data_dir: Path) -> Check:
    there = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 2**30:,.1f} GiB free for {data_dir}"
    if free < LOW_DISK_BYTES:
        return Check(
            "warn", "disk", f"{text}: views and the log grow with the tables; make room, or choose another --data-dir"
        )
    return Check("ok", "disk", text)


def _views(data_dir: Path) -> Iterator[Check]:
    """Sizes of the views on disk: maps are sparse, so blocks are counted."""
    files = list((data_dir / "views").glob("*/*/*/*/data.mdb"))
    if files:
        size = sum(file.stat().st_blocks * 512 for file in files)
        yield Check("ok", "views", f"{len(files):,} views take {size / 2**20:,.1f} MiB in {data_dir}")


def _kafka(settings: Settings) -> Iterator[Check]:
    try:
        registry = Registry(need_bootstrap(settings))
        brokers = topics.replication(registry.admin)
        definitions = registry.read()
    except UsageError as error:
        yield Check("fail" if isinstance(error, SetupError) else "warn", "kafka", str(error))
        return
    except LogStoreError as error:
        yield Check("fail", "kafka", str(error))
        return
    copies = "one broker: no second copy of anything" if brokers == 1 else f"{brokers} replicas for new topics"
    yield Check("ok" if brokers >= 3 else "warn", "kafka", f"{registry.bootstrap} answers ({copies})")
    tables = {name: table for name, table in definitions.tables.items() if not table.dropped}
    yield Check("ok", "store", f"{len(tables):,} tables, {registry.slots()} slots")
    yield from _internal(registry)
    yield from _definitions(definitions)
    for name in sorted(tables):
        yield from _table(registry, tables[name])


def _internal(registry: Registry) -> Iterator[Check]:
    """The settings of the store's own topics."""
    for topic, wanted in topics.internal_settings().items():
        actual = topics.settings_of(registry.admin, topic)
        wrong = [
            f"{name} is {actual.get(name)}, should be {value}"
            for name, value in wanted.items()
            if actual.get(name) != value
        ]
        lost = topic == TABLES_TOPIC and actual["cleanup.policy"] != "compact"
        if lost:
            wrong.insert(0, "definitions of tables would be lost")
        if wrong:
            yield Check("fail" if lost else "warn", topic, f"{'; '.join(wrong)}; a node that starts sets it, or set it")
        else:
            yield Check("ok", topic, "its settings are as they should be")


def _definitions(definitions: Definitions) -> Iterator[Check]:
    """Records of `logstore.tables` that cannot be read."""
    for name, why in sorted(definitions.unreadable.items()):
        yield Check("fail" if definitions.stopped(name) else "warn", f"table {name}", str(why))
    if definitions.storage_problem is not None:
        yield Check("warn" if definitions.storage else "fail", "storage", definitions.storage_problem)
    if definitions.foreign:
        what = f"{definitions.foreign:,} records under keys that no table can have: somebody else writes there"
        yield Check("warn", TABLES_TOPIC, what)


def _table(registry: Registry, table: Any) -> Iterator[Check]:
    what = f"table {table.name}"
    now = describe(registry.admin, [table.topic]).get(table.topic)
    if now is None:
        yield Check("fail", what, f"its topic {table.topic} is gone; {repairs.when_gone(table)}")
        return
    if now.topic_id != table.epoch:
        yield Check(
            "fail",
            what,
            f"its topic was created again; `logstore table repair {table.name} --new-epoch` accepts the new one",
        )
        return
    findings = topics.check(registry.admin, table)
    for finding in findings:
        change = f"; `logstore table alter {table.name} --topic-config {finding.setting}={finding.wanted}` changes it"
        yield Check("fail" if finding.fatal else "warn", what, f"{finding}" + (change if finding.is_to_change else ""))
    if not findings:
        yield Check("ok", what, "its topic is as it should be")


def _node(settings: Settings) -> Check:
    url = need_url(settings)
    try:
        with NodePages(_TIMEOUT_S) as pages:
            ready, cluster = pages.get(url, "/readyz"), pages.get(url, "/v1/partitions").document
    except LogStoreError as error:
        return Check("warn", "node", f"{error}")
    stopped = [
        f"{p['table']}/{p['partition']}: {p['reason']}" for p in cluster["partitions"] if p["state"] == "stopped"
    ]
    if stopped:
        return Check("fail", "node", f"{url}: {len(stopped)} partitions are stopped: {'; '.join(stopped[:3])}")
    if ready.status != 200:
        return Check("warn", "node", f"{url} is not ready: {ready.document.get('detail', ready.status)}")
    return Check("ok", "node", f"{url} is ready")
