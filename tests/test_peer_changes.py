"""Changes that another node answers: sound pages become changes, and anything else is refused."""

import msgpack
import pytest

from logstore.model.changes.before import CellBefore
from logstore.model.changes.row_change import RowChange
from logstore.model.folding.sibling import Sibling
from logstore.model.table import Table
from logstore.model.wide.cell import WideCell
from logstore.serve.changes.chunk import Chunk
from logstore.serve.changes.encoding import documents
from logstore.serve.changes.peers.peer_changes import read_changes, read_now
from logstore.serve.wire.problems import Problem

EPOCH = "ab" * 16
TABLE = Table("t", "t", EPOCH, 2)
EVENT = {"event": "put", "key": b"k", "value": b"v", "version": 5, "timestamp": 7, "partition": 1}


def page(*events, following=9, **wrong):
    return msgpack.packb({"events": list(events), "next": f"{EPOCH}-1-{following}", "live": True, **wrong})


def read(body):
    return read_changes("http://there", TABLE, 1, 5, body)


def test_what_one_node_sends_is_what_another_reads():
    changes = [
        RowChange(5, b"k", b"v", 7), RowChange(6, b"k", None, 7), RowChange(6, b"e", b"v", 7, ends=(99,)),
        RowChange(7, b"s", (Sibling(1, b"a"), Sibling(7, b"b")), 7, ends=(None, 99)),
    ]  # fmt: skip
    found = read(page(*documents([Chunk(1, 5, 9, changes)], bytes)))
    assert found == (changes, 9)
    cells = [{"family": "f", "qualifier": b"\xff", "version": 3, "timestamp": 7, "value": b"v", "expires": 99}]
    (change,), _ = read(page({**EVENT, "value": None, "cells": cells}))
    assert (change.value.cells, change.ends) == ((WideCell("f", b"\xff", 3, 7, b"v"),), (99,))
    before = (CellBefore("f", b"q", WideCell("f", b"q", 3, 7, b"v")), CellBefore("g", b"q", None, "one-version"))
    wide = [RowChange(version, b"k", None, 7, before=said) for version, said in ((5, before), (6, ()))]
    assert read(page(*documents([Chunk(1, 5, 9, wide)], bytes, before=True))).changes == wide
    assert read(page(following=5)) == ([], 5)
    assert read_now("http://there", TABLE, [1], page()) == {1: 9}


@pytest.mark.parametrize("body", [
    b"", b"null", msgpack.packb([]), page(EVENT, following=5), page(following=4), page({**EVENT, "partition": 0}),
    page({**EVENT, "version": 4}), page({**EVENT, "version": 9}), page({**EVENT, "version": 8}, EVENT),
    page({**EVENT, "event": "delete"}), page({**EVENT, "value": None}), page({**EVENT, "value": "text"}),
    page({**EVENT, "key": b""}), page({**EVENT, "key": "k"}), page({"event": "reset", "epoch": "cd" * 16}),
    page(EVENT, next="x"), page(EVENT, next=f"{'cd' * 16}-1-9"), page(EVENT, next=f"{EPOCH}-0-9"),
    page({**EVENT, "timestamp": None}),
])  # fmt: skip
def test_what_is_no_page_of_changes_is_refused(body):
    with pytest.raises(Problem) as refused:
        read(body)
    assert refused.value.word == "starting"


def test_a_node_that_does_not_say_where_it_stands_is_refused():
    with pytest.raises(Problem):
        read_now("http://there", TABLE, [0, 1], page())
