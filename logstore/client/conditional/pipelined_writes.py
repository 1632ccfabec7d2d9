"""PipelinedWrites: conditional writes of a pipeline, each of which is told its outcome later."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from logstore.client.checks import Text
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

P = TypeVar("P")


class PipelinedWrites(ABC, Generic[P]):
    """Conditional writes without waiting for each: as of `ConditionalWrites`, but for the table, which is known.

    Each gives a `PendingOutcome`; outcomes are known in no certain order among rows. A write whose acknowledgement is
    lost is sent again with its id, and may then be decided after later ones of the same row.
    """

    def put_if(
        self,
        key: Text,
        value: Text,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: Text | None = None,
        headers: Mapping[str, Text] | None = None,
        ttl_s: float | None = None,
    ) -> P:
        """Queue a write of a row if it is absent, present, of that version, or has that value: exactly one of them."""
        expected = Expected(absent, present, version, value_is)
        return self.decide(put_record(key, value, expected, headers, ttl_s))

    def delete_if(
        self,
        key: Text,
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        value_is: Text | None = None,
        headers: Mapping[str, Text] | None = None,
    ) -> P:
        """Queue a delete under a condition, as `put_if`."""
        return self.decide(delete_record(key, Expected(absent, present, version, value_is), headers))

    def cas(
        self, key: Text, expected: Text | None, value: Text | None, *, headers: Mapping[str, Text] | None = None
    ) -> P:  # fmt: skip
        """Queue a put of `value` in the place of `expected`; None stands for no row, on either side."""
        return self.decide(cas_record(key, expected, value, headers))

    def incr(self, key: Text, delta: int = 1, *, headers: Mapping[str, Text] | None = None) -> P:
        """Queue an addition to a counter, as `ConditionalWrites.incr`."""
        return self.decide(incr_record(key, delta, headers))

    def append(self, key: Text, suffix: Text, *, headers: Mapping[str, Text] | None = None) -> P:
        """Queue bytes behind those of a row."""
        return self.decide(append_record(key, suffix, headers))

    def edit(
        self,
        key: Text,
        edit: "RowEdit",
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        column: "Text | tuple[str, Text] | None" = None,
        headers: Mapping[str, Text] | None = None,
    ) -> P:
        """Queue an edit of the cells of a wide row, as `ConditionalWrites.edit`."""
        from logstore.client.wide.row_edit import edited_row  # noqa: PLC0415 - who edits no wide rows does without

        expected = Expected(absent, present, version, column=column)
        return self.decide(edit_record(edited_row(key, edit), expected, headers))

    def edit_rows(
        self,
        edits: "Mapping[Text, RowEdit]",
        *,
        absent: bool = False,
        present: bool = False,
        version: int | None = None,
        column: "Text | tuple[str, Text] | None" = None,
        headers: Mapping[str, Text] | None = None,
    ) -> P:
        """Queue an edit of several wide rows of one partition, as `ConditionalWrites.edit_rows`."""
        from logstore.client.wide.row_edit import edited_rows  # noqa: PLC0415 - who edits no wide rows does without

        expected = Expected(absent, present, version, column=column)
        return self.decide(edit_record(edited_rows(edits), expected, headers))

    @abstractmethod
    def decide(self, record: ConditionalRecord) -> P:
        """Queue a record whose outcome is remembered."""
