"""Outcomes and ids in a view: with the rows in one commit, through kills, generations and the window's end."""

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from support_hard import Log
from support_stretch import StretchState, columns
from support_view import IDENTITY
from test_stretch import KEYS, KvHistories, outcomes_of

from logstore.model.folding.decided import Decided
from logstore.model.folding.fold import Folded
from logstore.model.hard_rows.decisions import ID_KIND, OUTCOME_KIND
from logstore.model.hard_rows.encoding import decode_id, decode_outcome, first_of
from logstore.model.hard_rows.outcomes import AppliedOutcome, DuplicateOutcome, is_remembered
from logstore.model.hard_rows.stretch import StretchStart, fold_stretch
from logstore.view import generation
from logstore.view.conditional.state_before import ViewState
from logstore.view.layout import Base
from logstore.view.reader import ViewReader
from logstore.view.view import View
from streaming.lane.change_buffer import ChangeBuffer

CONDITIONAL = replace(IDENTITY, partitions=2, dedup_records=6, dedup_window_ms=40)
RULES = KvHistories(0).rules
A, B = KEYS[:2]
ID = b"i" * 16


def take(view, records, rules=RULES, below=lambda: None):
    start = StretchStart(view.next_offset, view.state.log_time_ms, view.counter)
    folded = fold_stretch(records, rules, start, ViewState(view.reader(), below))
    view.apply(folded)
    return folded


def remembered(view):
    """Outcomes, ids and counter as a reader of the view sees them."""
    with view.reader().reading() as reading:
        found = reading.decisions
        outcomes = {offset: one for offset in range(view.next_offset) if (one := found.outcome(offset)) is not None}
        names = {(key, b"%016d" % n) for key in KEYS for n in range(3)} | {(A, ID), (B, ID)}
        return outcomes, found.ids(sorted(names)), found.counter


def wanted(state):
    """The same, of a state in memory from which nothing is ever removed."""
    window = (state.log_time_ms, state.counter, state.rules.window)
    outcomes = {offset: one for offset, one in outcomes_of(state).items() if is_remembered(one, *window)}
    ids = {name: decode_id(raw, decode_outcome(state.outcomes[first_of(raw)])) for name, raw in state.named.items()}
    return outcomes, {name: one for name, one in ids.items() if is_remembered(one, *window)}, state.counter


def rows(view):
    with view.reader().reading() as reading:
        return dict(reading.scan())


@pytest.mark.parametrize("seed", range(25))
def test_a_view_holds_what_the_fold_leaves_and_forgets_what_has_ended(tmp_path, seed):
    histories = KvHistories(seed)
    log, state, view = histories.log(60), StretchState(RULES), View(tmp_path / "view", CONDITIONAL)
    while view.next_offset < 60:
        records = columns(log, view.next_offset, min(view.next_offset + histories.rng.choice([1, 3, 20]), 60))
        assert take(view, records) == state.take(records)
        assert rows(view) == state.rows
        assert remembered(view) == wanted(state)
        if histories.rng.random() < 0.2:
            view.close()
            view = View(tmp_path / "view", CONDITIONAL)
            assert remembered(view) == wanted(state)
    with view.reader().reading() as reading:
        stored = reading._txn.stat(reading._databases.outcomes)["entries"]
        assert stored == len(wanted(state)[0]), "what has ended is removed"
        assert reading._txn.stat(reading._databases.ids)["entries"] <= stored
        assert reading._txn.stat(reading._databases.id_ends)["entries"] <= stored
    view.close()


@pytest.mark.parametrize("seed", range(15))
def test_the_next_generation_has_them_all_and_goes_on(tmp_path, seed):
    histories = KvHistories(seed)
    log, state, view = histories.log(60), StretchState(RULES), View(tmp_path / "1", CONDITIONAL)
    below = {}
    for upto in (20, 30):
        records = columns(log, view.next_offset, upto)
        take(view, records)
        state.take(records)
        below = dict(state.rows) if upto == 20 else below
    base = Base("s", 20, 0, "0" * 32, len(below), "")
    builder = generation.Builder(view.reader(), tmp_path / "2.new", CONDITIONAL, base)
    builder.round()
    for upto, buffer in ((40, None), (50, ChangeBuffer())):
        records = columns(log, view.next_offset, upto)
        state.take(records)
        folded = take(view, records)
        if buffer is None:
            builder.round()
        else:
            buffer.add(folded)
    builder.close()
    following = View(tmp_path / "2.new", CONDITIONAL)
    following.apply(buffer.since(following.next_offset, view.state))
    assert remembered(following) == remembered(view) == wanted(state)
    assert rows(following) == {key: raw for key, raw in state.rows.items() if raw[1:9] >= (20).to_bytes(8)}
    records = columns(log, 50, 60)
    take(following, records, below=lambda: below)
    state.take(records)
    assert remembered(following) == wanted(state)
    for one in (view, following):
        one.close()


WRITER = """
    import sys
    sys.path.insert(0, "tests")
    from pathlib import Path
    from test_view_decisions import CONDITIONAL, RULES, increments, take
    from logstore.view.view import View
    view = View(Path(sys.argv[1]), CONDITIONAL)
    while True:
        take(view, increments(view.next_offset, view.next_offset + 7), RULES)
        print(view.next_offset, flush=True)
"""


def increments(first, after):
    log = Log()
    for n in range(after):
        log.incr(A, 1, id=b"%016d" % (n // 2))  # each is sent twice
    return columns(log, first, after)


def test_killed_at_random_instants_every_increment_counts_once(tmp_path, rng):
    for _ in range(4):
        argv = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path / "view")]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(rng.randrange(1, 30)):
                assert writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        view = View(tmp_path / "view", CONDITIONAL)
        count = int.from_bytes(rows(view)[A][17:], signed=True)
        assert (count, view.counter) == ((view.next_offset + 1) // 2, view.next_offset)
        view.close()


def test_a_reader_of_another_opening_sees_them(tmp_path):
    view = View(tmp_path / "view", CONDITIONAL)
    take(view, columns(Log().incr(A, 1, id=ID).incr(A, 1, id=ID), 0, 2))
    view.close()
    reader = ViewReader.open(tmp_path / "view")
    with reader.reading() as reading:
        assert reading.decisions.outcome(0).outcome == AppliedOutcome()
        assert reading.decisions.outcome(1).outcome == DuplicateOutcome(0, AppliedOutcome())
        assert reading.decisions.outcome(2) is None
        assert reading.decisions.counter == 2
        kinds = [key[:1] for key, _ in reading.decisions.items()]
        assert kinds == [ID_KIND, OUTCOME_KIND, OUTCOME_KIND]
        assert [key for key, _ in reading.decisions.items()] == sorted(key for key, _ in reading.decisions.items())
    reader.close()


def test_a_plain_view_has_none_and_its_bytes_are_as_they_were(tmp_path):
    view = View(tmp_path / "view", IDENTITY)
    with view.reader().reading() as reading:
        assert reading.decisions is None
        assert b"dedup" not in reading._txn.get(b"identity", db=reading._meta)
    view.close()


def test_many_outcomes_make_the_map_grow(tmp_path):
    identity = replace(CONDITIONAL, dedup_records=1_000_000, dedup_window_ms=1_000_000)
    view = View(tmp_path / "view", identity, map_bytes=1 << 20)
    count = 20_000
    outcomes = {n: (n + 1).to_bytes(8) + bytes(9) for n in range(count)}
    ids = {(b"row", b"%016d" % n): n.to_bytes(8) + bytes(16) + bytes(8) + (n + 1).to_bytes(8) for n in range(count)}
    view.apply(Folded(count, 0, {}, [], None, Decided(outcomes, ids, count)))
    copy = View(tmp_path / "copy", identity, map_bytes=1 << 20)
    with view.reader().reading() as reading:
        copy.load_decisions(reading.decisions.items(), reading.decisions.counter)
        with copy.reader().reading() as copied:
            assert copied.decisions.counter == count
            assert sum(1 for _ in copied.decisions.items()) == 2 * count
    view.close()
    copy.close()
