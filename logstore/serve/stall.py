"""Stall: for how long a client has read nothing of its answer. One that reads slowly gets it all."""


class Stall:
    """Of one connection; looked at once in a while."""

    __slots__ = ("_since_s", "_unsent")

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._unsent = 0  # bytes, at the last look

    def look(self, now_s: float, unsent_bytes: int, *, full: bool) -> float:
        """Seconds since anything was read of what waits to be sent; 0 unless so much waits that no more is taken (`full`)."""
        if not full:
            self._since_s = None
        elif self._since_s is None or unsent_bytes < self._unsent:
            self._since_s = now_s
        self._unsent = unsent_bytes
        return 0.0 if self._since_s is None else now_s - self._since_s
