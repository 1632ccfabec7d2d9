"""Consistency of an answer, read from headers and query parameters (the header wins)."""

from collections.abc import Mapping
from typing import NamedTuple

from logstore.model.errors import BadToken
from logstore.model.position import Position
from logstore.serve.read.as_of import AsOf, read_as_of
from logstore.serve.settings import DEFAULT_DEADLINE_MS, MAX_DEADLINE_MS
from logstore.serve.state.broker_clock import BrokerClock, now_ms
from logstore.serve.state.log_points import BARRIER, END
from logstore.serve.wire.problems import Problem
from logstore.serve.wire.request import Request, integer, text
from logstore.view.feed.log_records import clock_ns

PARAMS = frozenset({"consistency", "token", "max_lag_ms", "deadline_ms", "as_of"})
EVENTUAL, SESSION, BOUNDED, LATEST, LINEARIZABLE = "eventual", "session", "bounded", "latest", "linearizable"
LEVELS = (EVENTUAL, SESSION, BOUNDED, LATEST, LINEARIZABLE)
_POINTS = {BOUNDED: END, LATEST: END, LINEARIZABLE: BARRIER}
_MAX_LAG_MS = 2**53


class Consistency(NamedTuple):
    """Consistency a request asks for. The answer's token is merged with `token`, and all but `eventual` wait for it.

    `as_of`: the point of the past that is to be read, instead of a level. `since_ns`: when a point of the log must have
    been asked for at the earliest, by `clock_ns`: at the request's arrival, or `max_lag_ms` before it.
    """

    name: str = EVENTUAL
    token: Position = Position()
    deadline_ms: int = DEFAULT_DEADLINE_MS
    as_of: AsOf | None = None
    since_ns: int = 0
    max_lag_ms: int | None = None
    clock_ms: int = (
        0  # the reader's clock at the request's arrival; 0: rows that have ended by log time are gone, no others
    )

    @property
    def point(self) -> str | None:
        """Kind of the point of the log that must have been applied (`log_points`); None: no level that asks for one."""
        return _POINTS.get(self.name)

    @property
    def floor(self) -> Position:
        """Position that must have been applied before anything is answered."""
        if self.as_of is not None:
            return self.as_of.token or Position()
        return Position() if self.name == EVENTUAL else self.token

    @property
    def _token_ms(self) -> int:
        """The instant of the token, to a request that looks at a clock; `eventual` ignores it."""
        return self.token.time_ms if self.clock_ms and self.name != EVENTUAL else 0

    def instant_ms(self, clock: BrokerClock) -> int:
        """The instant at which rows that may expire are seen at the earliest. Raises Problem as `check`."""
        self.check(clock)
        return clock.instant_ms(self.clock_ms, self._token_ms)

    def check(self, clock: BrokerClock) -> None:
        """Check the token's instant; raises Problem when it is too far ahead to be a difference of clocks."""
        excess_ms = clock.excess_ms(self._token_ms)
        if excess_ms is not None:
            raise Problem(
                "consistency-timeout",
                f"the token saw rows at {self._token_ms} ms, {excess_ms / 1000:,.0f} s ahead of this node's clock "
                "and the brokers': one of the clocks is wrong",
            )


DEFAULT = Consistency()


def read_level(request: Request, params: Mapping[str, bytes]) -> Consistency:
    """Consistency of a request; raises Problem for a level, token or deadline that is none."""
    deadline = _option(request, params, b"ls-deadline", "deadline_ms")
    max_lag = _option(request, params, b"ls-max-lag", "max_lag_ms")
    max_lag_ms = None if max_lag is None else integer(max_lag, "max_lag_ms", 0, _MAX_LAG_MS)
    wanted = _option(request, params, b"ls-consistency", "consistency")
    token = _option(request, params, b"ls-token", "token")
    deadline_ms = DEFAULT_DEADLINE_MS if deadline is None else integer(deadline, "deadline_ms", 1, MAX_DEADLINE_MS)
    as_of = _option(request, params, b"ls-as-of", "as_of")
    if as_of is not None:
        alone = wanted is None and token is None and max_lag is None
        return Consistency(deadline_ms=deadline_ms, as_of=_as_of(as_of, alone=alone))
    name = _name(wanted, token, max_lag_ms)
    since_ns = clock_ns() - (max_lag_ms or 0) * 1_000_000 if name in _POINTS else 0
    position = _token(token, name)
    return Consistency(name, position, deadline_ms, None, since_ns, max_lag_ms, now_ms())


def check_instant(seen_ms: int, url: str, clock: BrokerClock) -> None:
    """Check the instant at which another node saw rows; raises Problem when it is too far ahead of the clocks here."""
    excess_ms = clock.excess_ms(seen_ms)
    if excess_ms is not None:
        raise Problem(
            "consistency-timeout", f"{url} saw rows at {seen_ms} ms, {excess_ms / 1000:,.0f} s ahead of this node's "
            "clock and the brokers': one of the clocks is wrong", owner=url,
        )  # fmt: skip


def _as_of(text: str, *, alone: bool) -> AsOf:
    if not alone:
        raise Problem(
            "bad-request", "as_of names the very point to read, a level or a token the least one: give one of them"
        )
    return read_as_of(text)


def _option(request: Request, params: Mapping[str, bytes], header: bytes, name: str) -> str | None:
    given = request.header(header)
    if given is not None:
        return given.strip()
    if name not in params:
        return None
    if name == "token":  # other bytes than ASCII are no token; the parser of tokens says so
        return params[name].decode("latin-1")
    return text(params[name], name)


def _name(wanted: str | None, token: str | None, max_lag_ms: int | None) -> str:
    if wanted is None:
        if max_lag_ms is not None:
            return BOUNDED
        return EVENTUAL if token is None else SESSION
    if wanted not in LEVELS:
        raise Problem("bad-level", f"there are the levels {', '.join(LEVELS)}, not {wanted[:40]!r}")
    if wanted == SESSION and not token:
        raise Problem("bad-request", "the level session needs a token: the LS-Token of an earlier answer or of a write")
    if (wanted == BOUNDED) != (max_lag_ms is not None):
        raise Problem(
            "bad-request", "the level bounded needs max_lag_ms, how old its answer may be, and no other level takes it"
        )
    return wanted


def _token(token: str | None, name: str) -> Position:
    if token is None:
        return Position()
    try:
        return Position.parse(token)
    except BadToken:
        if name == EVENTUAL:  # ignored, says the contract
            return Position()
        raise
