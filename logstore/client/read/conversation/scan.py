"""Scan: rows in order, page after page; the next one may be on its way while a page is taken."""

from typing import TYPE_CHECKING

from logstore.client.read.budget import Budget
from logstore.client.read.conversation.exchange import ReadRequest, answered
from logstore.client.read.conversation.owners import Owners
from logstore.client.read.conversation.requests import page_request
from logstore.client.read.conversation.steps import Ask, SendAhead, Steps, TakeAhead, begun
from logstore.client.read.point import After, note
from logstore.client.read.row import RowPage, page_of
from logstore.client.read.scan_pages import ScanPages
from logstore.client.transport.answer import HttpAnswer

if TYPE_CHECKING:
    from logstore.client.transport.ahead import Ahead, LoopAhead


class Scan:
    """A scan that is being read. Take a `page` until it `is_done`; `drop` what is on its way, whatever happens."""

    def __init__(self, owners: Owners, table: str, pages: ScanPages, after: After, deadline_ms: int) -> None:
        """Ask nothing yet. Raises UsageError for a deadline that is none."""
        Budget.of(deadline_ms)
        self._owners, self._table, self._pages = owners, table, pages
        self._after, self._deadline_ms = after, deadline_ms
        self._ahead: Ahead | LoopAhead | None = None

    @property
    def is_done(self) -> bool:
        """True when there is no other page."""
        return self._pages.done

    def page(self) -> Steps[RowPage]:
        """Steps that read the next page, and ask for the one after it where that pays."""
        pages = self._pages
        first = None if self._ahead is None else (yield from self._arrived())
        page = yield from begun(self._asked(), first)
        pages.took(page)
        self._ahead = (yield SendAhead(self._ask())) if pages.reads_on else None
        return page

    def drop(self) -> None:
        """Forget the page that is on its way."""
        if self._ahead is not None:
            self._ahead.drop()

    def _arrived(self) -> Steps[HttpAnswer | None]:
        """The answer that was asked for ahead; None: ask again."""
        assert self._ahead is not None, "one is on its way"
        answer: HttpAnswer | None = yield TakeAhead(self._ahead)
        if answer is None:
            self._pages.came_late()
        return answer

    def _asked(self) -> Steps[RowPage]:
        budget, query = Budget.of(self._deadline_ms), self._pages.query()
        path, headers = page_request(self._table, query, self._after)
        answer = yield from answered(self._owners, ReadRequest(self._table, path, headers), budget, budget.began)
        note(self._after, answer)
        return page_of(answer, self._table, keys_only="keys_only" in query, wide=self._pages.wide)

    def _ask(self) -> Ask:
        """The request that `_asked` begins with."""
        budget = Budget.of(self._deadline_ms)
        path, headers = page_request(self._table, self._pages.query(), self._after)
        return Ask("GET", self._owners.url, path, budget.said_in(headers), None, budget.last_answer)
