"""Who is announced as live: only what every reader has been told of."""

import socket

from support_log import until

from logstore.view.feed.acknowledgement import Acknowledgement, MarkKey, MarkRecord
from logstore.view.feed.server import FeedServer
from logstore.view.feed.stream import FeedReader, connect
from streaming.control.reader_acks import ReaderAcks


def subscriber(path) -> socket.socket:
    sock = connect(path)
    sock.settimeout(60)
    return sock


def test_a_slot_is_live_once_every_reader_has_sent_its_mark_back(tmp_path):
    server = FeedServer(tmp_path / "feed")
    try:
        confirm = ReaderAcks(server, 2)
        assert confirm.live(frozenset({1})) == frozenset()  # nobody reads here
        first, second = subscriber(tmp_path / "feed"), subscriber(tmp_path / "feed")
        until("both are there", lambda: len(server.acks()) == 2)
        assert confirm.live(frozenset({1, 2})) == frozenset()
        mark = dict(FeedReader().decode(first.recv(1 << 16)))[MarkKey()]
        first.sendall(Acknowledgement(mark=mark).encode())
        until("the first has said so", lambda: None not in [server.acks()[0]])
        assert confirm.live(frozenset({1, 2})) == frozenset()
        second.sendall(Acknowledgement(mark=MarkRecord("another run", 99)).encode())
        until("the second has said something", lambda: server.acks()[1])
        assert confirm.live(frozenset({1, 2})) == frozenset()
        seen = Acknowledgement(mark=server.get(MarkKey())).encode()
        second.sendall(seen + seen)
        first.sendall(seen)
        until("both have seen it", lambda: confirm.live(frozenset({1, 2})) == {1, 2})
        assert confirm.live(frozenset({2})) == {2}  # what is not live any more is never announced
        first.close()
        until("one is gone", lambda: len(server.acks()) == 1)
        second.sendall(Acknowledgement(mark=server.get(MarkKey())).encode())
        assert confirm.live(frozenset({2, 3})) == {2}  # the other one answers for what it answered for
        second.sendall(Acknowledgement(mark=server.get(MarkKey())).encode())
        until("the second has seen it", lambda: server.acks()[0] == Acknowledgement(mark=server.get(MarkKey())))
        assert confirm.live(frozenset({2, 3})) == {2}  # one of two is too few for what is new
        second.close()
    finally:
        server.close()
