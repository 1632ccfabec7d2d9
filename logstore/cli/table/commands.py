"""Commands about definitions: create, list, describe and alter tables.

A command returns when every live reader serves its change.
"""

import functools
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from logstore.cli import options, show
from logstore.cli.table.definition import document, done, holds, rows_of
from logstore.cli.table.families import SPEC
from logstore.cli.table.families import families as named
from logstore.cli.table.split_points import split_points, with_split_points
from logstore.cli.table_names import table_names
from logstore.log import topics
from logstore.log.tables import ddl, repairs
from logstore.log.tables.registry import Registry
from logstore.model.errors import UsageError
from logstore.model.table import (
    COMPRESSIONS,
    DEFAULT_DEDUP_RECORDS,
    DEFAULT_MAX_VALUE_BYTES,
    DEFAULT_PARTITIONS,
    Table,
)
from logstore.model.wide.altered_families import REMOVED
from logstore.node.addresses import need_bootstrap
from logstore.settings import Settings

_SNAPSHOTS: dict[str, tuple[click.ParamType | None, str | None, str]] = {  # type, metavar, help
    "compression": (click.Choice(COMPRESSIONS), None, "Of snapshots' blocks."),
    "block_bytes": (click.INT, "N", "Of a block: small for single rows, large for scans."),
    "keep_snapshots": (click.INT, "N", "How many stay when a new one is made."),
    "merge_share": (click.FLOAT, "SHARE", "Of its base's size, that deltas reach before they are merged with it."),
}
UNCHANGED = "unchanged"
TOPIC_CONFIG = click.option(
    "--topic-config", multiple=True, metavar="NAME=VALUE", help="A setting of the topic; may be repeated."
)


def _with_snapshots(default: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Add the options that say how a table's snapshots are made; help shows the `default` of each.

    The command gets those that were given as `snapshots`.
    """

    def add(function: Any) -> Any:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in _SNAPSHOTS}
            snapshots = {name: value for name, value in given.items() if value is not None}
            return function(*args, snapshots=snapshots, **kwargs)

        wrapped: Any = run
        for name, (kind, metavar, text) in reversed(_SNAPSHOTS.items()):
            flag = f"--{name.replace('_', '-')}"
            said = click.option(flag, type=kind, metavar=metavar, help=f"{text}  [default: {default(name)}]")
            wrapped = said(wrapped)
        return wrapped

    return add


def _of_a_new_table(name: str) -> Any:
    return next(field.default for field in fields(Table) if field.name == name)


@click.command()
@options.with_settings("bootstrap", "data_dir", "timeout_s")
@click.argument("name")
@click.option("--partitions", type=int, help=f"1 to 1,024, for good.  [default: {DEFAULT_PARTITIONS}]")
@with_split_points
@click.option(
    "--max-value-bytes",
    type=options.BYTES,
    default=DEFAULT_MAX_VALUE_BYTES,
    show_default=True,
    help="Longer values are refused, for good.",
)
@click.option("--description", default="", help="What it is.")
@click.option(
    "--conditional",
    is_flag=True,
    help="Take conditions (put --if), incr and append, and remember what became of them; for good.",
)
@click.option(
    "--expiring",
    is_flag=True,
    help="As --conditional, and rows may carry a TTL (put --ttl): compactions and digests read such a table whole.",
)
@click.option("--wide", is_flag=True, help="As --conditional, and rows are cells in column families; for good.")
@click.option(
    "--family",
    "families",
    metavar=SPEC,
    multiple=True,
    help="With --wide, as often as needed: a column family, how many versions its cells keep (1), and how long they "
    "live when their writer does not say. A TTL makes the table --expiring. `table alter` adds more.",
)
@click.option("--multi-row", is_flag=True, help="With --wide: an edit may name several rows of one partition.")
@click.option(
    "--siblings",
    is_flag=True,
    help="As --conditional, and puts that did not see each other stay side by side (put --seen); for good.",
)
@click.option(
    "--dedup-window",
    metavar="TIME",
    help="With --conditional: how long outcomes and ids are remembered, such as 90s or 7d.  [default: 24h]",
)
@click.option(
    "--dedup-records",
    type=int,
    metavar="N",
    help=f"With --conditional: how many of a partition, the newest.  [default: {DEFAULT_DEDUP_RECORDS:,}]",
)
@click.option("--topic", metavar="TOPIC", help="Make a table of this topic, which is there and stays yours.")
@click.option("--allow-control-records", is_flag=True, help="Let the store write its control records into --topic.")
@TOPIC_CONFIG
@_with_snapshots(_of_a_new_table)
@options.AS_JSON
def create(
    settings: Settings, name: str, partitions: int | None, ordered: bool, listed: str | None, splits_file: Path | None,
    key_encoding: str, max_value_bytes: int, description: str, conditional: bool,
    expiring: bool, wide: bool, families: tuple[str, ...], multi_row: bool, siblings: bool,
    dedup_window: str | None, dedup_records: int | None, topic: str | None,
    allow_control_records: bool, topic_config: tuple[str, ...], snapshots: dict[str, Any], as_json: bool,
) -> None:  # fmt: skip
    """Make a table."""
    registry = Registry(need_bootstrap(settings))
    config = options.pairs(topic_config, "--topic-config")
    splits = split_points(ordered, listed, splits_file, key_encoding)
    if topic is None:
        if allow_control_records:
            raise UsageError(
                "--allow-control-records is for --topic; the store's own topics have control records anyway"
            )
        change = ddl.create(
            registry, name, partitions=partitions, splits=splits,
            max_value_bytes=max_value_bytes,
            description=description, topic_config=config, snapshots=snapshots,
            conditional=conditional, expiring=expiring, wide=wide, families=named(families, "--family"),
            multi_row=multi_row, siblings=siblings,
            **_window(dedup_window, dedup_records),
        )  # fmt: skip
    else:
        window_given = dedup_window is not None or dedup_records is not None
        if conditional or expiring or wide or families or multi_row or siblings or window_given:
            raise UsageError("a conditional table has a topic of its own: leave --topic out")
        if splits:
            raise UsageError(
                "a topic that others write to is placed by their partitioner: an ordered table has a topic of its own"
            )
        if partitions is not None or config:
            raise UsageError(
                "with --topic the partitions and settings are the topic's own; leave --partitions and --topic-config "
                "out"
            )
        change = ddl.adopt(
            registry, name, topic, max_value_bytes=max_value_bytes, description=description,
            allow_control_records=allow_control_records,
            snapshots=snapshots,
        )  # fmt: skip
    holds(registry, change, settings.timeout_s, new=True)
    own = "created" if change.table.topic == name else f"created; its topic is {change.table.topic}"
    done(change, own if topic is None else f"made of topic {topic}", as_json=as_json)


def _window(dedup_window: str | None, dedup_records: int | None) -> dict[str, int]:
    """The dedup window as far as it was given."""
    window = {} if dedup_window is None else {"dedup_window_ms": options.duration_ms(dedup_window, "--dedup-window")}
    return window if dedup_records is None else {**window, "dedup_records": dedup_records}


@click.command(name="list")
@options.with_settings("bootstrap", "data_dir")
@options.AS_JSON
def list_(settings: Settings, as_json: bool) -> None:
    """List the tables."""
    definitions = Registry(need_bootstrap(settings)).read()
    tables = sorted((t for t in definitions.tables.values() if not t.dropped), key=lambda table: table.name)
    unreadable = {name: str(why) for name, why in sorted(definitions.unreadable.items())}
    for why in unreadable.values():
        show.warn(f"warning: {why}")
    if as_json:
        show.as_json({"tables": [document(table) for table in tables], "unreadable": unreadable})
    elif not tables:
        show.warn("there is no table yet; `logstore table create NAME` makes one")
    else:
        columns = ("table", "rows", "partitions", "topic", "max value", "description")
        show.table(
            columns, [(t.name, rows_of(t), t.partitions, _topic(t), t.max_value_bytes, t.description) for t in tables]
        )


@click.command()
@options.with_settings("bootstrap", "data_dir")
@click.argument("name", shell_complete=table_names)
@options.AS_JSON
def describe(settings: Settings, name: str, as_json: bool) -> None:
    """Show a table's definition, and what is wrong with its topic."""
    from logstore.cli import compactions  # noqa: PLC0415 - only who needs it waits for its import

    registry = Registry(need_bootstrap(settings))
    found = registry.table(name)
    epoch = topics.epoch_of(registry.admin, found.topic)
    findings = (
        [str(finding) for finding in topics.check(registry.admin, found)]
        if epoch == found.epoch
        else [_not_ours(found, epoch)]
    )
    stands = compactions.look(registry, found, settings.storage, settings.data_dir)
    if as_json:
        show.as_json({**document(found), "compactions": stands, "findings": findings})
        return
    show.fields(document(found))
    for line in compactions.lines(stands) if stands else ():
        click.echo(f"compacted {line}")
    for finding in findings:
        show.warn(finding)


@click.command()
@options.with_settings("bootstrap", "data_dir", "timeout_s")
@click.argument("name", shell_complete=table_names)
@click.option("--description", help=f"What it is.  [default: {UNCHANGED}]")
@click.option(
    "--allow-control-records/--no-allow-control-records",
    default=None,
    help=f"Whether the store may write its control records.  [default: {UNCHANGED}]",
)
@click.option(
    "--add-family",
    "added",
    metavar=SPEC,
    multiple=True,
    help="Of a wide table, as often as needed: a column family more, as of `table create`.",
)
@click.option(
    "--family",
    "changed",
    metavar=SPEC,
    multiple=True,
    help="Of a wide table: other rules of a family that is there, for what is written from now on; ttl=none: no TTL.",
)
@TOPIC_CONFIG
@_with_snapshots(lambda _: UNCHANGED)
@click.option("--partitions", type=int, hidden=True)
@click.option("--max-value-bytes", type=options.BYTES, hidden=True)
@click.option("--drop-family", "removed", hidden=True)
@options.AS_JSON
def alter(
    settings: Settings, name: str, description: str | None, allow_control_records: bool | None,
    added: tuple[str, ...], changed: tuple[str, ...], topic_config: tuple[str, ...],
    snapshots: dict[str, Any], partitions: int | None, max_value_bytes: int | None, removed: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Change a table's description, column families, next snapshots, or settings of its topic, and if it is written to.

    All else is fixed at creation.
    """
    _refuse(name, partitions=partitions, max_value_bytes=max_value_bytes)
    if removed is not None:
        raise UsageError(REMOVED.format(table=name, family=removed))
    config = options.pairs(topic_config, "--topic-config")
    if not any((description is not None, allow_control_records is not None, config, snapshots, added, changed)):
        raise UsageError(
            "nothing to change: give --description, --add-family, --topic-config, --allow-control-records, "
            "--compression, ..."
        )
    registry = Registry(need_bootstrap(settings))
    change = ddl.alter(
        registry,
        name,
        description=description,
        topic_config=config,
        allow_control_records=allow_control_records,
        snapshots=snapshots,
        add_families=named(added, "--add-family"),
        families=named(changed, "--family"),
    )
    holds(registry, change, settings.timeout_s)
    done(change, "altered", as_json=as_json)


def _refuse(name: str, **fixed: int | None) -> None:
    for option, value in fixed.items():
        if value is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} is fixed at creation: another one would change what the records already "
                "in the log mean; "
                f"create a new table with it, copy the rows (`logstore scan {name} --json`), then drop this one"
            )


def _not_ours(found: Table, epoch: str | None) -> str:
    if epoch is None:
        return f"the topic {found.topic} is gone; {repairs.when_gone(found)}"
    return (
        f"the topic {found.topic} was deleted and created again; `logstore table repair {found.name} --new-epoch` "
        "accepts the new one"
    )


def _topic(found: Table) -> str:
    return f"{found.topic} (adopted)" if found.adopted else found.topic
