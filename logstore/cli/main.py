"""`logstore`: the command. Commands are loaded when they are used, so that each pays for itself only.

Exit status: 0 done, 1 it did not work, 2 the call is wrong. Errors are one line on stderr; LOGSTORE_DEBUG=1 shows the
trace.
"""

import os
import sys
from importlib import import_module
from typing import Any

import click

from logstore.model.errors import BadDefinition, BadKey, BadToken, LogStoreError, UsageError, ValueTooLarge

_SECTIONS = {
    "Rows": {
        "put": "rows.put_get",
        "get": "rows.put_get",
        "delete": "rows.put_get",
        "scan": "rows.put_get",
        "count": "rows.count",
        "load": "rows.load",
        "export": "rows.export.command",
    },
    "Tables": {"table": "table.group"},
    "Snapshots": {"snapshot": "snapshot", "view": "view"},
    "Running": {"dev": "node", "node": "node", "kafka": "kafka"},
    "Proving": {"batch": "batch"},
    "Looking": {"status": "status", "doctor": "doctor", "version": "version"},
}
_HELP = {
    "put": "Write one row.",
    "get": "Read one row.",
    "delete": "Delete one row.",
    "scan": "Read rows in key order.",
    "count": "Count rows.",
    "load": "Write the rows of a CSV, JSON lines or Parquet file.",
    "export": "Write rows to a CSV, JSON lines or Parquet file, which load reads.",
    "table": "Create, list, describe, alter, drop and repair tables.",
    "snapshot": "List, verify, pin, roll back and collect snapshots.",
    "view": "Throw a view away, and begin it again.",
    "dev": "Run a whole store on this machine: Kafka, workers, readers.",
    "node": "Run a node: workers and readers, on a Kafka that is there.",
    "kafka": "Run a real Apache Kafka broker in the background, for development.",
    "batch": "Archive, compact, rebuild, restore, audit and trim, with Spark.",
    "status": "Show nodes, tables and partitions.",
    "doctor": "Look for what is wrong with this machine, Kafka and the tables.",
    "version": "Show versions.",
}
_MODULES = {name: f"logstore.cli.{module}" for section in _SECTIONS.values() for name, module in section.items()} | {
    "batch": "batch.cli.group"  # a program that stands on this library, plugged in by name
}
_CALLERS_WORDS = (BadDefinition, BadKey, BadToken, ValueTooLarge)


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, D102 - click's signature
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, D102 - click's signature
        module = _MODULES.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(module), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002, D102 - click's signature
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, _HELP[name]) for name in commands])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Resolve a command as click does, and name the commands there are when it is none of them."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}; there are {', '.join(_MODULES)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="logstore-kv", prog_name="logstore", message="%(prog)s %(version)s")
def cli() -> None:
    """A key-value store whose database is the log.

    \b
    Examples:
      logstore dev                                     a whole store, here, now (leave it running)
      logstore table create users
      logstore put users ada "Ada Lovelace"
      logstore get users ada
      logstore scan users --prefix a --json
      logstore load flights flights.parquet --key '{origin}/{carrier}{flight}'

    Kafka's address and the read API are found through --bootstrap and --url, LOGSTORE_BOOTSTRAP and LOGSTORE_URL,
    logstore.toml, or the `logstore dev` that runs.
    """  # noqa: D301 - click's \b keeps the lines


def main(argv: list[str] | None = None) -> None:
    """Run the command and exit with its status."""
    try:
        status = cli.main(argv, prog_name="logstore", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        status = 1
    except (click.Abort, KeyboardInterrupt):
        status = _say("stopped", 130)
    except click.ClickException as error:
        status = _say(_usage(error), error.exit_code)
    except LogStoreError as error:
        _debug()
        status = _say(str(error), status_of(error))
    except Exception as error:  # the last resort of a program: say it in one line
        _debug()
        status = _say(f"{type(error).__name__}: {error}; LOGSTORE_DEBUG=1 shows where", 1)
    sys.exit(status if isinstance(status, int) else 0)


def status_of(error: LogStoreError) -> int:
    """2 where the caller's words are wrong, 1 for the rest."""
    return 2 if type(error) is UsageError or isinstance(error, _CALLERS_WORDS) else 1


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".")
    return f"{text}; see `{context.command_path} --help`" if context else text


def _say(text: str, status: int) -> int:
    error = sys.exception()
    if isinstance(error, click.Abort):  # click's word for a KeyboardInterrupt, which has the notes
        error = error.__cause__ or error
    notes = getattr(error, "__notes__", [])
    line = " ".join("; ".join([text, *notes]).split("\n"))
    click.echo(f"logstore: {line}", err=True)
    return status


def _debug() -> None:
    if os.environ.get("LOGSTORE_DEBUG"):
        raise  # noqa: PLE0704 - inside the handlers of main


if __name__ == "__main__":
    main()
