"""`logstore version`: versions of what is installed."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

import logstore
from logstore.cli import options, show

PARTS = ("confluent-kafka", "lmdb", "faust-streaming", "aiokafka", "pyspark", "uvicorn", "pyarrow")


def versions() -> dict[str, str]:
    """Name -> version of this build and of what it stands on."""
    found = {"logstore": logstore.__version__, "python": platform.python_version()}
    for part in PARTS:
        try:
            found[part] = version_of(part)
        except PackageNotFoundError:
            found[part] = "not installed"
    return found


@click.command()
@options.AS_JSON
def version(as_json: bool) -> None:
    """Show the versions installed."""
    found = versions()
    if as_json:
        show.as_json(found)
    else:
        click.echo(f"logstore {found.pop('logstore')}")
        for name, number in found.items():
            click.echo(f"  {name} {number}")
