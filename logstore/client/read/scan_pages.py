"""Scan pages: the arguments of a scan, as the caller says them and as a request says them."""

from typing import TYPE_CHECKING

from logstore.client.checks import Text, check_number
from logstore.client.read.row import RowPage
from logstore.model.errors import UsageError
from logstore.model.key import to_base64url, to_bytes

if TYPE_CHECKING:
    from logstore.model.wide.selection import CellSelection

PAGE = 1000  # rows of one
_LONG = 16_384  # bytes


class ScanPages:
    """The arguments of a scan, and where its next page begins."""

    def __init__(
        self,
        *,
        prefix: Text | None = None,
        start: Text | None = None,
        end: Text | None = None,
        limit: int | None = None,
        reverse: bool = False,
        keys_only: bool = False,
        cells: "CellSelection | None" = None,
    ) -> None:
        """Take over the settings; raises UsageError when they contradict each other. `cells`: of wide rows."""
        if prefix is not None and (start is not None or end is not None):
            raise UsageError("a scan takes either prefix, or start and end")
        if type(reverse) is not bool or type(keys_only) is not bool:
            raise UsageError(f"reverse and keys_only are True or False, not {reverse!r:.40} and {keys_only!r:.40}")
        if limit is not None:
            check_number("limit", limit, 1, whole=True)
        self._left, self._reads_on = limit, limit is not None
        bounds = {"prefix": prefix, "start": start, "end": end}
        self._query = _encoded({name: to_bytes(bound) for name, bound in bounds.items() if bound is not None})
        if reverse:
            self._query["reverse"] = "true"
        if keys_only:
            self._query["keys_only"] = "true"
        self.wide = cells is not None
        if cells is not None:
            self._query.update(cells.params())
        self._cursor: str | None = None
        self.done = self.slow = False

    def query(self) -> dict[str, bytes | str]:
        """The next page's parameters."""
        limit = PAGE if self._left is None else min(PAGE, self._left)
        page = {**self._query, "limit": str(limit)}
        return page if self._cursor is None else {**page, "cursor": self._cursor}

    def took(self, page: RowPage) -> None:
        """Note a page that has come."""
        self._reads_on = self._reads_on or self._cursor is not None
        self._cursor = page.cursor
        if self._left is not None:
            self._left -= page.length
        self.done = page.cursor is None or self._left == 0

    @property
    def reads_on(self) -> bool:
        """True when the next page is asked for while this one is taken: by the limit, or since one was taken whole."""
        return self._reads_on and not self.done and not self.slow

    def came_late(self) -> None:
        """Note that a page asked for ahead was of no use: rows are taken too slowly for it."""
        self.slow = True


def _encoded(bounds: dict[str, bytes]) -> dict[str, bytes | str]:
    """The bounds of a scan; long ones so that they take a third more, not three times as much, of the request line."""
    if sum(map(len, bounds.values())) < _LONG:
        return dict(bounds)
    return {"key_encoding": "base64url", **{name: to_base64url(bound) for name, bound in bounds.items()}}
