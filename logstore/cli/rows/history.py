"""`logstore history`: every mutation of one key that log and archive still hold."""

import time

import click

from logstore.cli import options, show
from logstore.cli.rows.history_lines import as_object, as_text, bounds_of
from logstore.cli.rows.progress import ScanBar, scan_bar
from logstore.cli.table_names import table_names
from logstore.client.history.key_history import KeyHistory, Selection
from logstore.client.history.mutation import KeyMutation
from logstore.client.read.http import HttpReader
from logstore.node.addresses import need_bootstrap, need_url
from logstore.settings import Settings

_EVERY_S, _MOST_BYTES = 0.1, 1 << 16  # between two looks at the screen; lines that are held until then


@click.command()
@options.with_settings("bootstrap", "url", "data_dir", "deadline_ms")
@click.argument("table", shell_complete=table_names)
@click.argument("key")
@click.option("--since", metavar="TOKEN|TIME", help="Only what was written after that, a time as in RFC 3339.")
@click.option("--until", metavar="TOKEN|TIME", help="Only what get --as-of of the same would have seen.")
@click.option("--limit", type=click.IntRange(1), help="Mutations at most, the first ones to be shown.  [default: all]")
@click.option("--reverse", is_flag=True, help="The oldest first.")
@click.option("--no-values", is_flag=True, help="Leave the values out; their sizes stay.")
@click.option("--no-archive", is_flag=True, help="Ask the log alone: no storage is needed.")
@options.STORAGE
@options.KEY_ENCODING
@options.AS_JSON
def history(
    settings: Settings, table: str, key: str, since: str | None, until: str | None, limit: int | None, reverse: bool,
    no_values: bool, no_archive: bool, storage: str | None, key_encoding: str, as_json: bool,
) -> None:  # fmt: skip
    """Show every mutation of a key that log and archive still hold, the newest first, and what became of it.

    \b
    Examples:
      logstore history users ada --limit 5
      logstore history users ada --until 2026-01-31T12:00:00Z --json

    The one with an asterisk made the row what it is. With --json there is an object a line, and a last one that says
    what was looked through.
    """  # noqa: D301 - click's \b keeps the lines
    from logstore.client.history.decided import asking  # noqa: PLC0415 - as the next one
    from logstore.client.history.opening import ArchiveChoice, open_history  # noqa: PLC0415 - loads librdkafka
    from logstore.log.tables.registry import Registry  # noqa: PLC0415 - as above

    selection = Selection(since, until, limit, reverse, not no_values)
    archive = ArchiveChoice(not no_archive, storage or settings.storage, settings.find_data_dir())
    bootstrap = need_bootstrap(settings)
    with scan_bar(table) as begin:
        lines = _HistoryLines(as_json=as_json, values=not no_values)
        found = open_history(
            bootstrap, Registry(bootstrap).table(table), options.key_bytes(key, key_encoding), selection, archive,
            scanned=lines.scanned,
            outcomes=asking(lambda: HttpReader(need_url(settings)), settings.deadline_ms),
        )  # fmt: skip
        with found:
            lines.bar = begin(found.span)
            lines.print_all(found)
    if as_json:
        show.as_json({"history": {"table": table, **bounds_of(found), "mutations": lines.count}})
    else:
        show.warn(_summary(found, lines.count))


class _HistoryLines:
    """Lines on stdout, several at a time."""

    bar: ScanBar | None = None

    def __init__(self, *, as_json: bool, values: bool) -> None:
        self._as_json, self._values, self.count = as_json, values, 0
        self._held, self._held_bytes, self._printed_s = list[bytes](), 0, time.monotonic()

    def print_all(self, found: KeyHistory) -> None:
        """Print the mutations as they come."""
        for mutation in found:
            self._add(mutation)
        self._show()

    def scanned(self, count: int) -> None:
        """Hear of records that were looked through: what was found before is not to wait for the next one."""
        if self.bar is not None:
            self.bar.advance(count)
            self._show_if_due()

    def _add(self, mutation: KeyMutation) -> None:
        line = as_object(mutation, values=self._values) if self._as_json else as_text(mutation, values=self._values)
        self._held.append(line)
        self._held_bytes, self.count = self._held_bytes + len(line), self.count + 1
        self._show_if_due()

    def _show_if_due(self) -> None:
        if self._held_bytes >= _MOST_BYTES or time.monotonic() - self._printed_s >= _EVERY_S:
            self._show()

    def _show(self) -> None:
        if self._held and self.bar is not None:
            with self.bar.away():
                show.raw(b"".join(self._held))
            self._held, self._held_bytes = [], 0
        self._printed_s = time.monotonic()


def _summary(found: KeyHistory, count: int) -> str:
    """A sentence that says how far back log and archive can tell."""
    where = f"{count:,} mutations in partition {found.partition}, offsets {found.start:,} to {found.end - 1:,}"
    if found.end <= found.start:
        where = f"nothing was looked through: partition {found.partition} has no offsets there"
    held = "log and archive hold every mutation" if found.archived_to else "the log holds every mutation"
    since = f"{held} from offset {found.known_from:,} on{_time(found.known_from_ms)}"
    more = f"; {found.copied_from} has what came before: this table was restored from it" if found.copied_from else ""
    if found.missing is None:
        return f"{where}; {since}{more}"
    first, last = found.missing
    return f"{where}; {since}; what offsets {first:,} to {last:,} did to the key nobody holds any more{more}"


def _time(time_ms: int | None) -> str:
    return "" if time_ms is None else f" ({show.time_text(time_ms)})"
