"""`logstore`: the command. Commands are loaded when they are used, so that each pays for itself only.

Exit status: 0 done, 1 it did not work, 2 the call is wrong. Errors are one line on stderr; LOGSTORE_DEBUG=1 shows the
trace.
"""

import os
import sys

import click

from logstore.cli.lazy_group import LazyGroup, Sections
from logstore.extras import missing
from logstore.model.errors import BadDefinition, BadKey, BadToken, LogStoreError, UsageError, ValueTooLarge

_PUT_GET, _NODE = "logstore.cli.rows.put_get", "logstore.cli.running.node"
_CONDITIONAL = "logstore.cli.rows.conditional"
_SINGLE = "logstore.cli.running.single"
_SECTIONS: Sections = {
    "Rows": {
        "put": (_PUT_GET, "Write one row."),
        "get": (_PUT_GET, "Read one row."),
        "delete": (_PUT_GET, "Delete one row."),
        "incr": (_CONDITIONAL, "Add to a counter, in a conditional table."),
        "append": (_CONDITIONAL, "Put bytes behind those of a row, in a conditional table."),
        "edit": ("logstore.cli.rows.wide.edit", "Edit the cells of a row, in a wide table."),
        "outcome": (_CONDITIONAL, "Tell what became of a conditional write."),
        "scan": (_PUT_GET, "Read rows in key order."),
        "changes": ("logstore.cli.rows.changes", "Print what became of rows, and follow it."),
        "history": ("logstore.cli.rows.history", "Show every mutation of a row, and what became of it."),
        "count": ("logstore.cli.rows.count", "Count rows."),
        "load": ("logstore.cli.rows.load", "Write the rows of a CSV, JSON lines or Parquet file."),
        "export": (
            "logstore.cli.rows.export.command",
            "Write rows to a CSV, JSON lines or Parquet file, which load reads.",
        ),
    },
    "Tables": {
        "table": ("logstore.cli.table.group", "Create, list, describe, alter, drop and repair tables."),
    },
    "Snapshots": {
        "snapshot": ("logstore.cli.snapshot", "List, verify, pin, roll back and collect snapshots."),
        "view": ("logstore.cli.view", "Throw a view away, and begin it again."),
    },
    "Running": {
        "dev": (_NODE, "Run a whole store on this machine: Kafka, workers, readers."),
        "node": (_NODE, "Run a node: workers and readers, on a Kafka that is there."),
        "stop": ("logstore.cli.running.stop", "End the `dev` or `node` that runs here."),
        "worker": (_SINGLE, "Run one worker of a node, where systemd or containers look after each process."),
        "reader": (_SINGLE, "Run one reader of a node, likewise."),
        "kafka": ("logstore.cli.running.kafka", "Run a real Apache Kafka broker in the background, for development."),
    },
    "Securing": {
        "acl": ("logstore.cli.acl", "Print or set the least ACLs of who works with a store on a secured Kafka."),
    },
    "Proving": {  # a program that stands on this library, plugged in by name
        "batch": ("batch.cli.group", "Archive, compact, rebuild, restore, audit and trim, with or without Spark."),
    },
    "Looking": {
        "status": ("logstore.cli.status", "Show nodes, tables and partitions."),
        "doctor": ("logstore.cli.doctor.command", "Look for what is wrong with this machine, Kafka and the tables."),
        "config": ("logstore.cli.setup.config", "Show the settings that hold here, and where they come from."),
        "shell": ("logstore.cli.shell.command", "Take commands at a prompt, with completion and a history."),
        "completion": ("logstore.cli.setup.completion", "Complete commands and tables in bash, zsh and fish."),
        "version": ("logstore.cli.version", "Show versions."),
    },
}
_CALLERS_WORDS = (BadDefinition, BadKey, BadToken, ValueTooLarge)


@click.group(
    cls=LazyGroup,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="logstore-kv", prog_name="logstore", message="%(prog)s %(version)s")
def cli() -> None:
    """A key-value store whose database is the log.

    \b
    Examples:
      logstore dev --detach                            a whole store, here, now; `logstore stop` ends it
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
    sys.exit(run(argv))


def run(argv: list[str] | None = None) -> int:
    """Run the command, say what is wrong, and return its exit status."""
    try:
        status = cli.main(argv, prog_name="logstore", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        status = 1
    except (click.Abort, KeyboardInterrupt):
        status = say("stopped", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        status = error.exit_code
    except click.ClickException as error:
        status = say(_usage(error), error.exit_code)
    except LogStoreError as error:
        _debug()
        status = say(str(error), status_of(error))
    except ModuleNotFoundError as error:
        _debug()
        status = say(str(missing(error) or error), 1)
    except OSError as error:
        _debug()
        status = say(_of_the_system(error), 1)
    except Exception as error:  # the last resort of a program: say it in one line
        _debug()
        status = say(f"{type(error).__name__}: {error}; LOGSTORE_DEBUG=1 shows where", 1)
    return status if isinstance(status, int) else 0


def status_of(error: LogStoreError) -> int:
    """Exit status of an error: 2 where the caller's words are wrong, 1 for the rest."""
    return 2 if type(error) is UsageError or isinstance(error, _CALLERS_WORDS) else 1


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    text = error.format_message().rstrip(".")
    return f"{text}; see `{context.command_path} --help`" if context else text


def _of_the_system(error: OSError) -> str:
    """Refusal of the system in its words, the path first where there is one."""
    if error.filename is None or error.strerror is None:
        return f"{type(error).__name__}: {error}; LOGSTORE_DEBUG=1 shows where"
    return f"{os.fsdecode(error.filename)}: {error.strerror}; LOGSTORE_DEBUG=1 shows what needed it"


def say(text: str, status: int) -> int:
    """Say what is wrong in one line, with the notes of the error that is handled; returns the exit status."""
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
