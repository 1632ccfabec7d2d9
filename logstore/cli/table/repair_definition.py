"""`logstore table repair NAME --definition`: the way out for a table whose definition in the log cannot be read.

What is written again is the newest one that can be read: of the log, else what the workers of this data directory kept.
Where there is neither, the record is withdrawn: the table is not there then, and its topic stays.
"""

from pathlib import Path

import click
import orjson

from logstore.log.tables import change
from logstore.log.tables.change import Change
from logstore.log.tables.registry import Definitions, Registry
from logstore.model.errors import Corrupted, LogStoreError, Unsupported
from logstore.model.table import Table


def repair_definition(registry: Registry, data_dir: Path, name: str, *, yes: bool) -> Change | None:
    """Ask, then write; None: nothing to repair, or the record was withdrawn. Raises Unsupported, LogStoreError."""
    definitions = registry.read()
    why = definitions.unreadable.get(name)
    if why is None:
        click.echo("the definition can be read: there is nothing to repair", err=True)
        return None
    if isinstance(why, Unsupported):
        raise why
    click.echo(str(why), err=True)
    known = _newest(definitions, data_dir, name)
    if known is not None:
        _agree(f"write the definition of {name} again as it was: topic {known.topic}, epoch {known.epoch}?", yes=yes)
        return change.write(registry, known, [])
    _agree(f"nothing readable is left of the definition of {name}: withdraw it? Its topic stays", yes=yes)
    registry.forget(name)
    click.echo(f"table {name}: withdrawn; `logstore table create {name} --topic TOPIC` makes one of a topic", err=True)
    return None


def _newest(definitions: Definitions, data_dir: Path, name: str) -> Table | None:
    readable = [definitions.tables[name]] if name in definitions.tables else []
    return next(iter(readable or _saved(data_dir, name)), None)


def _saved(data_dir: Path, name: str) -> list[Table]:
    """Definitions of the table as workers that ran here have saved them."""
    found: list[Table] = []
    for path in sorted((data_dir / "workers").glob("*.json")):
        try:
            texts = orjson.loads(path.read_bytes())["tables"]["tables"]
            found += [Table.from_json(text.encode()) for text in texts]
        except (OSError, ValueError, TypeError, LookupError, AttributeError, Corrupted, Unsupported) as error:
            click.echo(f"{path} tells nothing: {error}", err=True)
    return [table for table in found if table.name == name]


def _agree(question: str, *, yes: bool) -> None:
    if not yes and not click.confirm(question, err=True):
        raise LogStoreError("nothing was changed")
