"""Slow subscribers of a change feed: real sockets that nobody reads, of a real reader.

reads nothing         the reader ends the connection, half a minute after it could send nothing more (the kernel may
                      take some more meanwhile: then as the next one)
reads too slowly      the stream ends with `end`, once the ring has gone on without it
either                the last id that came goes on without a gap, and nobody else waits for it
"""

import contextlib
import http.client
import itertools
import socket
import time
from urllib.parse import urlencode, urlsplit

import pytest
from support_sockets import other_ends
from support_wait import until
from test_changes import MIB, Stream, covers, own_bytes, written

from logstore import Store
from logstore.model.position import Position
from tests.support_changes import Poller, events

_NAMES = (f"slow{number}" for number in itertools.count())
VALUE = "v" * (MIB // 16)


@pytest.fixture
def table(dev):
    name = next(_NAMES)
    dev("table", "create", name, "--partitions", "2")
    return name


@pytest.fixture
def store(dev):
    with Store(bootstrap=dev.facts["bootstrap"], url=dev.facts["http"]) as store:
        yield store


class SlowStream:
    """A subscriber with a small window, which reads when it is asked to."""

    def __init__(self, url, table, since):
        place = urlsplit(url)
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 10)
        self._socket.settimeout(60)
        self._socket.connect((place.hostname, place.port))
        self._port = self._socket.getsockname()[1]
        path = f"/v1/tables/{table}/changes?{urlencode({'since': since})}"
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nhost: {place.netloc}\r\n\r\n".encode())
        self._answer = http.client.HTTPResponse(self._socket)
        self._answer.begin()
        assert self._answer.status == 200
        self.seen, self.last, self.problem = set(), since, None

    def read(self, position):
        """Read all that comes, to the end of the stream or of what was written."""
        for name, data, last in events(self._lines()):
            self.last = last or self.last
            if name == "end":
                self.problem = data
            elif name:
                self.seen.add((data["partition"], data["version"]))
            if self.problem or covers(self.last, position):
                return

    def _lines(self):
        with contextlib.suppress(http.client.IncompleteRead, ConnectionResetError):  # it was cut off
            while line := self._answer.readline():
                yield line.decode().rstrip("\n")

    @property
    def is_connected(self):
        """True while the reader's end of the connection is open, as the kernel has it."""
        return any(end.is_open for end in other_ends(self._port))

    @property
    def unsent(self):
        """Bytes that the kernel has of the reader, and cannot send."""
        return sum(end.unsent_bytes for end in other_ends(self._port))

    def close(self):
        self._answer.close()
        self._socket.close()


def much(count, first=0):
    """Rows of 64 KiB each."""
    return {f"k{number:04}": VALUE for number in range(first, first + count)}


def offsets_of(start, end):
    """Partition and offset of all records between two positions."""
    return {(p, offset) for (e, p), upto in end.pieces.items() for offset in range(start.pieces.get((e, p), 0), upto)}


def rest_of(dev, table, stream, position):
    """What follows the last id that a stream had, up to a position."""
    poller, seen = Poller(dev.facts["http"], table, stream.last), set()
    while not covers(poller.since, position):
        seen |= {(event["partition"], event["version"]) for event in poller.poll(1_000)}
    poller.close()
    return seen


@pytest.mark.slow
def test_who_reads_nothing_or_too_slowly_is_cut_off_and_goes_on_from_the_last_id(dev, store, table):
    url = dev.facts["http"]
    since = Position.parse(store.get(table, "k", after=store.put(table, "k", "before"), deadline_ms=30_000).token)
    silent, slow = (SlowStream(url, table, since.token) for _ in range(2))
    quick = Stream(url, table, since.token)
    written(store, table, much(256))  # by when every queue is full
    began_s = time.monotonic()
    position = written(store, table, much(512, 256))
    until("who reads has it all", lambda: quick.last and covers(quick.last, position))
    assert silent.is_connected, "the others have not waited for it"
    until("it has been slow", lambda: time.monotonic() - began_s > 1.5)
    slow.read(position)
    assert (slow.problem or {}).get("type") == "urn:logstore:overloaded", slow.problem
    until("the reader has ended it", lambda: not silent.is_connected, 240)
    silent.read(position)
    for stream in (silent, slow):
        rest = rest_of(dev, table, stream, position)
        assert stream.seen | rest >= offsets_of(since, position), "without a gap"
        assert len(stream.seen) < len(rest)
        stream.close()
    quick.end(store, table)


@pytest.mark.slow
def test_those_who_read_nothing_each_of_another_place_of_the_log_cost_a_bounded_amount(dev, store, table):
    since = Position.parse(store.get(table, "k", after=store.put(table, "k", "before"), deadline_ms=30_000).token)
    written(store, table, much(800))
    (epoch, _), _ = next(iter(since.pieces.items()))
    starts = [Position({(epoch, 0): offset, (epoch, 1): offset}) for offset in range(0, 300, 6)]
    streams = [SlowStream(dev.facts["http"], table, start.token) for start in starts[:10]]  # of each reader some
    until("they are stuck", Stuck(streams))
    before = own_bytes(dev)
    more = [SlowStream(dev.facts["http"], table, start.token) for start in starts[10:]]
    until("they are stuck", Stuck(more))
    each = (own_bytes(dev) - before) / len(more)
    for stream in (*streams, *more):
        stream.close()
    assert each < 4 * MIB, f"{each / MIB:.1f} MiB for each"


class Stuck:
    """True once nothing has moved between two looks."""

    def __init__(self, streams):
        self._streams, self._before = streams, []

    def __call__(self):
        now = [stream.unsent for stream in self._streams]
        before, self._before = self._before, now
        return now == before and all(now)
