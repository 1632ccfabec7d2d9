"""Reader acknowledgements: a slot is announced as live only once every reader of the node answers for it.

A former owner lets go of a slot when the new one announces it, so the announcement must not run ahead of the readers:
they hear of a view over the feed, open it, and say so by sending back the mark that was published after it. Readers
that do not come up answer for nothing, so as many as the node has must have said so.
"""

import secrets

from logstore.view.feed.acknowledgement import Acknowledgement, MarkKey, MarkRecord
from logstore.view.feed.server import FeedServer


class ReaderAcks:
    """Acknowledgements of the readers, who are asked with one mark for each change of what is live."""

    def __init__(self, feed: FeedServer, readers: int) -> None:
        """`readers`: how many the node has; what fewer of them know is not live for whoever asks the others."""
        self._feed, self._readers = feed, readers
        self._run, self._number = secrets.token_hex(4), 0  # marks of an earlier run of this worker do not count
        self._awaited: frozenset[int] = frozenset()
        self._confirmed: frozenset[int] = frozenset()

    def live(self, slots: frozenset[int]) -> frozenset[int]:
        """The part of `slots`, live in the lane, that every reader of the node has been told of and answers for."""
        if slots != self._awaited or not self._number:
            self._awaited, self._number = slots, self._number + 1
            self._feed.publish(MarkKey(), MarkRecord(self._run, self._number))
        acks = self._feed.acks()
        if len(acks) >= self._readers and all(self._has_seen(ack) for ack in acks):
            self._confirmed = slots
        return self._confirmed & slots

    def _has_seen(self, ack: Acknowledgement | None) -> bool:
        mark = None if ack is None else ack.mark
        return mark is not None and mark.run == self._run and mark.number >= self._number
