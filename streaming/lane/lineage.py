"""Lineage: whether a log still is the one that was followed.

A broker that loses its power loses what it had not flushed, and goes on at the offsets of what is gone. So before
anything of a log is applied it has to hold, byte for byte, the last records that are known to have been applied here:

    the one that outlived the view    `logstore.view.positions`; only when the view stands before it: it was thrown away
    the view's own                    of its state; that of its base when it has just been begun

Each is followed from its own offset, so that the first thing the log hands over is the answer.
"""

from logstore.model.record_identity import AppliedPosition


class LineageProof:
    """Records that one partition's log has to hold, and has shown."""

    def __init__(self, outlived: AppliedPosition | None) -> None:
        self._outlived = outlived
        self._log_start = 0  # what lay below was trimmed, and cannot be asked for
        self.wanted: AppliedPosition | None = None  # its last record is what the log has to hand over next
        self.again = False  # the log is to be followed from another place now

    def begin(self, applied: AppliedPosition | None, next_offset: int) -> AppliedPosition | None:
        """Position to be compared next; None: there is none. `applied`, `next_offset`: where the view stands."""
        self.again = False
        if self._outlived is not None and self._outlived.next_offset <= next_offset:
            self._outlived = None  # the view's own says more
        candidates = (self._outlived, applied)
        self.wanted = next((one for one in candidates if one is not None and one.last.offset >= self._log_start), None)
        return self.wanted

    def held(self) -> None:
        """The log holds what was wanted, or nothing depends on it any more."""
        if self.wanted is not None and self.wanted == self._outlived:
            self._outlived, self.again = None, True
        self.wanted = None

    def trimmed(self, log_start: int) -> None:
        """The log begins behind what was wanted."""
        self._log_start, self.wanted, self.again = log_start, None, True
