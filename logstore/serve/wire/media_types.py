"""Media types: the one that a client accepts (RFC 9110, section 12.5.1)."""

from collections.abc import Sequence

JSON = "application/json"
MSGPACK = "application/msgpack"
COLUMNS = "application/vnd.logstore.columns+msgpack"
ARROW = "application/vnd.apache.arrow.stream"
BYTES = "application/octet-stream"


def choose(accept: str | None, offers: Sequence[str]) -> str | None:
    """The offer that the Accept header likes best, the first of equals; None when it likes none."""
    if accept is None or not accept.strip():
        return offers[0]
    ranges = [_parse(part) for part in accept.split(",") if part.strip()]
    best = max(offers, key=lambda offer: _quality(offer, ranges))  # max keeps the first of equals
    return best if _quality(best, ranges) > 0 else None


def _parse(part: str) -> tuple[str, float]:
    media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
    try:
        return media_range, min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return media_range, 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """The quality of the most specific range that matches."""
    for pattern in (offer, offer.partition("/")[0] + "/*", "*/*"):
        for media_range, quality in ranges:
            if media_range == pattern:
                return quality
    return 0.0
