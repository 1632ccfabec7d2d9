"""Objects: values that are JSON objects, taken apart into columns, so that `load --key` makes the same rows of them.

A row is taken apart only where `load`'s own functions make the same bytes of its columns again; else it is refused.
"""

from typing import Any

from logstore import Row
from logstore.cli.rows.columns import key_maker, value_maker
from logstore.cli.rows.files import Number, Place, guessed, parsed
from logstore.model.errors import UsageError

WHOLE = "without --key the file has the columns key and value, which hold everything"


class Objects:
    """The columns of rows whose keys `--key` makes."""

    def __init__(self, template: str) -> None:
        """Take over the template; raises UsageError when it is none."""
        self._template = template
        self._key_of, self._value_of = key_maker(template), value_maker(None)

    def columns(self, stored: Row) -> Place:
        """The columns of a row. Raises UsageError where they would not make the same row again."""
        where = f"row {stored.key!r}"
        try:
            row = parsed(stored.value.decode())
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: the value is no JSON ({error}); {WHOLE}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{where}: the value is no JSON object; {WHOLE}")
        place = Place(row, where)
        key = self._key_of(place)
        if key != stored.key:
            raise UsageError(f"{where}: --key {self._template!r} makes {key!r} of its columns; {WHOLE}")
        if self._value_of(place) != stored.value:
            raise UsageError(f"{where}: the value is JSON that load would write otherwise (spaces, escapes); {WHOLE}")
        return place


def same_columns(place: Place, names: list[str]) -> None:
    """Raise UsageError for a row that has not exactly these columns, in their order."""
    if list(place.row) != names:
        raise UsageError(
            f"{place.where}: the columns are {', '.join(place.row)[:200]}, those of the first row "
            f"{', '.join(names)[:200]}; --format jsonl holds rows of different columns"
        )


def field(value: Any, name: str, where: str, *, guess_types: bool) -> str:
    """The field of CSV that `load` reads as the value again. Raises UsageError where there is none."""
    if value is None:
        return ""
    if isinstance(value, (bool, Number)):
        if guess_types:
            return str(value).lower() if isinstance(value, bool) else value.text
        raise UsageError(
            f"{where}, column {name}: {str(value).lower()} is no text, and columns of CSV are: say --guess-types here "
            "and at load, or --format jsonl or parquet"
        )
    if not isinstance(value, str):
        raise UsageError(f"{where}, column {name}: CSV holds no lists and objects; --format jsonl does")
    if not value:
        raise UsageError(
            f"{where}, column {name}: an empty text would be null in CSV; --format jsonl or parquet holds both"
        )
    if guess_types and guessed(value) is not value:
        raise UsageError(
            f"{where}, column {name}: the text {value[:40]!r} would become a number or truth value with --guess-types; "
            "leave that out, or --format jsonl or parquet"
        )
    return value
