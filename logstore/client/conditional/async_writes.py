"""AsyncConditionalWrites: writes that the log decides, of every client for asyncio."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from logstore.client.checks import Text
from logstore.client.conditional.outcome import Outcome
from logstore.client.conditional.record import (
    ConditionalRecord,
    Expected,
    append_record,
    cas_record,
    delete_record,
    edit_record,
    incr_record,
    put_record,
)  # fmt: skip

if TYPE_CHECKING:
    from logstore.client.wide.row_edit import RowEdit


class AsyncConditionalWrites(ABC):
    """Conditional writes of a client for asyncio: the awaitable methods of `ConditionalWrites`; they raise the same."""

    async def put_if(
        self,
        table: str,
        key: Text,
        value: Text,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: Text | None = None,
        headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None,
    ) -> Outcome:
        """Write a row if it is absent, present, of that version, or has that value: exactly one of them.

        `ttl_s`: seconds after which the row is gone again, in a table whose rows expire (else NotExpiring).
        """
        expected = Expected(absent, present, version, value_is)
        return await self.decide(table, put_record(key, value, expected, headers, ttl_s))

    async def delete_if(
        self,
        table: str,
        key: Text,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: Text | None = None,
        headers: Mapping[str, Text] | None = None,
    ) -> Outcome:
        """Delete a row under a condition, as `put_if`."""
        return await self.decide(table, delete_record(key, Expected(absent, present, version, value_is), headers))

    async def cas(
        self,
        table: str,
        key: Text,
        expected: Text | None,
        value: Text | None,
        *,
        headers: Mapping[str, Text] | None = None,
    ) -> Outcome:
        """Put `value` in the place of `expected`; None stands for no row, on either side."""
        return await self.decide(table, cas_record(key, expected, value, headers))

    async def incr(
        self, table: str, key: Text, delta: int = 1, *, headers: Mapping[str, Text] | None = None
    ) -> Outcome:  # fmt: skip
        """Add to a counter: a row of 8 bytes, big-endian and signed; one that is absent counts as 0.

        A sum beyond that, or a row of another length, is "invalid". Read the row after the outcome's token for the sum.
        """
        return await self.decide(table, incr_record(key, delta, headers))

    async def append(
        self, table: str, key: Text, suffix: Text, *, headers: Mapping[str, Text] | None = None
    ) -> Outcome:  # fmt: skip
        """Add bytes behind those of a row, or make it of them; one that would be too large is "invalid"."""
        return await self.decide(table, append_record(key, suffix, headers))

    async def edit(
        self,
        table: str,
        key: Text,
        edit: "RowEdit",
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        column: "Text | tuple[str, Text] | None" = None,
        headers: Mapping[str, Text] | None = None,
    ) -> Outcome:
        """Edit the cells of a wide row, all together or not at all: a `RowEdit` says how.

        Under a condition if one is given: the row is absent, present or of that version; with `column` ("family:name",
        or a pair), the cell there is of that version. An edit that cannot be done is "invalid", with the reason.
        Raises NotWide, UsageError for a family that the table has not, ValueTooLarge when it is too much for a record.
        """
        from logstore.client.wide.row_edit import edited_row  # noqa: PLC0415 - who edits no wide rows does without

        expected = Expected(absent, present, version, column=column)
        return await self.decide(table, edit_record(edited_row(key, edit), expected, headers))

    async def edit_rows(
        self,
        table: str,
        edits: "Mapping[Text, RowEdit]",
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        column: "Text | tuple[str, Text] | None" = None,
        headers: Mapping[str, Text] | None = None,
    ) -> Outcome:
        """Edit several wide rows of one partition, all together or none, in a table made with `multi_row`.

        The condition is on the first row, whose key the record has. A key of another partition is "invalid". Raises as
        `edit`.
        """
        from logstore.client.wide.row_edit import edited_rows  # noqa: PLC0415 - who edits no wide rows does without

        expected = Expected(absent, present, version, column=column)
        return await self.decide(table, edit_record(edited_rows(edits), expected, headers))

    @abstractmethod
    async def decide(self, table: str, record: ConditionalRecord) -> Outcome:
        """Have the record in the log, and its outcome."""
