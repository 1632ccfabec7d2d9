"""CellsAsked: the cells of a wide row that a request asks for, and the form of its answer; and the last ones."""

from typing import NamedTuple, Self

import orjson
from msgspec.msgpack import Encoder

from logstore.model.table import Table
from logstore.model.wide.cell import RowCells
from logstore.model.wide.selection import CellSelection
from logstore.serve.read.encoding import Field, cell_documents, json_bytes
from logstore.serve.read.parameters.cell_query import CELL_PARAMS, cells_of, read_cell_query
from logstore.serve.read.parameters.cursor import query_digest
from logstore.serve.wire import media_types
from logstore.serve.wire.request import query_params

ANY = "*/*"
ROW_FORMS = (media_types.JSON, media_types.MSGPACK)
_pack = Encoder().encode  # a quarter of the time of msgpack's
_MOST, _MAX_QUERY_BYTES = 256, 512  # remembered: clients send the same queries again and again


class CellsAsked(NamedTuple):
    """Cells of a wide row that are asked for, and the form of the answer.

    `mark`: rest of its ETag; none for the whole row in JSON, whose ETag is the row's version alone.
    """

    cells: CellSelection
    media_type: str
    mark: str

    @classmethod
    def of(cls, cells: CellSelection, media_type: str) -> Self:
        """Cells in a form, with the mark that both have in an ETag."""
        selection = "" if cells == CellSelection() else f".{query_digest(cells.text, cells.versions).hex()}"
        return cls(cells, media_type, selection + (".msgpack" if media_type == media_types.MSGPACK else ""))

    def body(self, key: bytes, found: RowCells, version: int | None) -> bytes:
        """The row as a document."""
        field: Field = bytes if self.media_type == media_types.MSGPACK else json_bytes
        document = {"key": field(key), "version": version, "cells": cell_documents(found, field)}
        return _pack(document) if field is bytes else orjson.dumps(document)


class CellForms:
    """Cells and forms that requests have asked for, by their table, query and what they accept."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes, str], tuple[Table, CellsAsked]] = {}

    def of(self, table: Table, query: bytes, accept: str) -> CellsAsked:
        """Cells that a query asks for, if it asks for nothing else. `accept`: ANY, or one media type of ROW_FORMS.

        Requires: a wide table. Raises Problem.
        """
        place = table.epoch, query, accept
        known = self._known.get(place)
        if known is not None and known[0] is table:  # as it is defined now
            return known[1]
        cells = cells_of(table, read_cell_query(query_params(query, CELL_PARAMS)))
        assert cells is not None, "the table is wide"
        asked = CellsAsked.of(cells, ROW_FORMS[0] if accept == ANY else accept)
        if len(query) <= _MAX_QUERY_BYTES:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[place] = table, asked
        return asked
