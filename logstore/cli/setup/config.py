"""`logstore config`: the settings that hold here, and where each comes from."""

import re
from typing import Any

import click

from logstore.cli import options, show
from logstore.cli.running.options import ALL, with_options
from logstore.log.connect.sources import described
from logstore.settings import SettingSource, chosen

_UNITS = {"mb_s": "MB/s", "ms": "ms", "s": "s", "mb": "MB"}  # by the end of a setting's name
_COUNTED = {"workers": "processes", "readers": "processes"}
_USER = re.compile(r"(?<=//)[^/@\s]+@")  # who one is, in a URL


@click.group()
def config() -> None:
    """Show the settings that hold here."""


@config.command(name="show")
@with_options(ALL)
@options.AS_JSON
def show_(as_json: bool, **flags: Any) -> None:
    """Show every setting: value, unit, and where it comes from. Options are those of `logstore dev`.

    Secrets are not shown; of Kafka's properties only the values of those that are known to be none.
    """
    found = [_row(one) for one in chosen(flags)]
    found += [
        {"name": f"kafka.{name}", "value": value, "unit": "", "from": where}
        for name, value, where in described(flags.get("kafka_config"))
    ]
    if as_json:
        show.as_json(found)
    else:
        show.table(
            ("name", "value", "unit", "from"),
            [(one["name"], _text(one["value"]), one["unit"], one["from"]) for one in found],
        )


def _row(one: SettingSource) -> dict[str, Any]:
    return {"name": one.name, "value": _plain(one.value), "unit": unit(one.name), "from": one.where}


def unit(name: str) -> str:
    """Unit of a setting; none for a text, a switch or a plain number."""
    ends = (_UNITS[end] for end in _UNITS if name.endswith(f"_{end}"))
    return _COUNTED.get(name) or next(ends, "")


def _plain(value: Any) -> Any:
    """A value as JSON has it, without who one is."""
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return [str(one) for one in value] if type(value) is tuple else _USER.sub("***@", str(value))


def _text(value: Any) -> Any:
    return ",".join(value) if isinstance(value, list) else value
