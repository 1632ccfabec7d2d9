"""A table of any position of another one's history, and what is the same in both."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import msgpack
import pytest
from support_jobs import (
    InProcess,
    content,
    context,
    crash_folder,
    digests,
    drive,
    ends,
    folded,
    live,
    make_table,
    token,
    write,
)
from support_log import produce
from support_wait import until

from batch.jobs.archive import archive
from batch.jobs.audit import audit
from batch.jobs.compact import compact, rebuild
from batch.jobs.diff import diff
from batch.jobs.history import History
from batch.jobs.restore import restore
from batch.jobs.trim import trim
from logstore.log import topics
from logstore.log.kafka import clients, offsets
from logstore.log.kafka.records import read_records
from logstore.log.tables import forks
from logstore.model.errors import (
    BadDefinition,
    BadToken,
    EpochChanged,
    JobRunning,
    LogTruncated,
    NoSuchTable,
    NotRetained,
    TableExists,
    UsageError,
)
from logstore.model.folding.entry import Entry
from logstore.snapshot.storage import Storage


@pytest.fixture
def ctx(kafka, tmp_path):
    return context(kafka.bootstrap, tmp_path)


def rows(entries):
    """Key -> (timestamp, value): what a restored row keeps."""
    return {
        key: (found.timestamp_ms, found.payload)
        for key, found in ((key, Entry.decode(raw)) for key, raw in entries.items())
    }


def check(ctx, source, done, upto):
    """The fork is, row by row, the fold of the source below the position, all of it with version 0."""
    for partition, cut in upto.items():
        held = content(ctx, done.manifest, partition)
        assert rows(held) == rows(live(ctx.bootstrap, source, partition, cut))
        assert {Entry.decode(raw).version for raw in held.values()} <= {0}
        assert done.manifest.parts[partition].log_time_ms == folded(ctx.bootstrap, source, partition, cut).log_time_ms
    assert ctx.repository(done.table).verify(done.manifest.name) == []


def test_any_position_becomes_a_table_of_its_own(ctx):
    source = make_table(ctx, "res-any", 3, compression="zstd", description="before")
    write(ctx.bootstrap, source, 600)
    early = ends(ctx, source)
    write(ctx.bootstrap, source, 300, seed=2, deletes=0.5)
    compact(ctx, source)
    write(ctx.bootstrap, source, 300, seed=3, deletes=0.5)
    middle = {partition: end - 20 - partition for partition, end in ends(ctx, source).items()}
    write(ctx.bootstrap, source, 100, seed=4)
    for name, upto in (
        ("res-any-a", early),
        ("res-any-b", middle),
        ("res-any-c", dict.fromkeys(early, 0)),
        ("res-any-d", ends(ctx, source)),
    ):
        done = restore(ctx, source.name, token(source, upto), name)
        check(ctx, source, done, upto)
        fork = ctx.registry.table(name)
        assert fork == done.table
        assert (fork.partitions, fork.compression, fork.base) == (3, "zstd", {"snapshot": done.manifest.name})
        assert fork.origin == {"table": source.name, "epoch": source.epoch, "position": token(source, upto)}
        assert fork.epoch != source.epoch
    assert done.document()["entries"] == sum(len(live(ctx.bootstrap, source, p, cut)) for p, cut in upto.items())
    assert ctx.registry.table(source.name).epoch == source.epoch


def test_the_log_of_a_restored_table_begins_with_a_base_record(ctx):
    source = make_table(ctx, "res-base", 2)
    write(ctx.bootstrap, source, 100)
    done = restore(ctx, source.name, token(source, ends(ctx, source)), "res-base-then")
    for partition in range(2):
        (record,) = read_records(ctx.bootstrap, "res-base-then", partition, 0, 1)
        assert (record.key(), record.headers()) == (None, [("ls.op", b"base")])
        assert msgpack.unpackb(record.value()) == {
            "snapshot": done.manifest.name, "table": source.name, "epoch": source.epoch,
            "position": done.position.token,
        }  # fmt: skip


def test_a_restored_table_is_written_compacted_rebuilt_audited_trimmed_and_restored_itself(ctx):
    source = make_table(ctx, "res-life", 2)
    write(ctx.bootstrap, source, 400)
    fork = restore(ctx, source.name, token(source, ends(ctx, source)), "res-life-then").table
    before = {
        key: entry
        for p in range(2)
        for key, entry in content(ctx, ctx.repository(fork).manifest(fork.base["snapshot"]), p).items()
    }
    produce(ctx.bootstrap, fork.topic, [(b"key-00001", b"fresh"), (b"key-00002", None)])
    first = compact(ctx, fork).manifest
    expected = {**before, b"key-00001": b"fresh"}
    expected.pop(b"key-00002", None)
    assert set(content(ctx, first, 0)) | set(content(ctx, first, 1)) == set(expected)
    assert digests(rebuild(ctx, fork).manifest) == digests(first)
    compact(ctx, fork)  # a rebuild begins a new line, and trimming wants a predecessor
    found = audit(ctx, fork, timeout_s=0)
    assert {suspect.verdict for suspect in found.suspects if suspect.name.startswith("snapshot")} == {"agree"}
    assert trim(ctx, fork, yes=True).records > 0
    again = restore(ctx, fork.name, token(fork, ends(ctx, fork)), "res-life-again")
    assert diff(ctx, fork.name, again.table.name).same
    with pytest.raises(NotRetained, match="began with the snapshot"):
        restore(ctx, fork.name, token(fork, dict.fromkeys(range(2), 0)), "res-life-never")


def test_a_time_means_the_first_offset_that_is_later(ctx):
    source = make_table(ctx, "res-time", 2)
    moments = []
    for batch in range(4):
        write(ctx.bootstrap, source, 60, seed=batch)
        times = [folded(ctx.bootstrap, source, p, end).log_time_ms for p, end in ends(ctx, source).items()]
        moments.append(max(times))
        _pass(max(times))
    truth = [_first_later(ctx, source, moment) for moment in moments]
    assert len({tuple(found.items()) for found in truth}) > 1

    def located():
        history = History(ctx, source)
        return [history.locate(_rfc3339(moment)) for moment in moments]

    assert located() == truth  # of the log
    archive(ctx, source)
    compact(ctx, source)
    compact(ctx, source)
    audit(ctx, source, timeout_s=0)  # no node proves the snapshots here
    trim(ctx, source, yes=True)
    assert offsets.bounds(clients.admin(ctx.bootstrap), source.topic, [0])[0].start > 0
    assert located()[:3] == truth[:3]  # of the archive: the log has not got it any more
    done = restore(ctx, source.name, _rfc3339(moments[1]), "res-time-then")
    assert done.position.token == token(source, truth[1])


def _first_later(ctx, table, moment):
    found = {}
    for partition, end in ends(ctx, table).items():
        later = (
            r.offset() for r in read_records(ctx.bootstrap, table.topic, partition, 0, end) if r.timestamp()[1] > moment
        )
        found[partition] = next(later, end)
    return found


def test_what_is_no_point_of_the_history_is_refused_before_anything_is_made(ctx):
    source = make_table(ctx, "res-wrong", 2)
    write(ctx.bootstrap, source, 50)
    fine = token(source, ends(ctx, source))
    for at, error, text in (
        ("nonsense", BadToken, "not a token"),
        ("2026-01-31 12:00", UsageError, "RFC 3339"),
        ("2999-01-01T00:00:00Z", UsageError, "still to come"),
        (fine.split(",")[0], UsageError, "no piece for partition 1"),
        (token(source, {0: 10**9, 1: 0}), UsageError, "its log ends at"),
    ):
        with pytest.raises(error, match=text):
            restore(ctx, source.name, at, "res-wrong-then")
    with pytest.raises(NoSuchTable):
        restore(ctx, "res-nobody", fine, "res-wrong-then")
    with pytest.raises(TableExists, match="there is a table"):
        restore(ctx, source.name, fine, source.name)
    with pytest.raises(BadDefinition):
        restore(ctx, source.name, fine, "Not A Name")
    former = replace(source, former_epochs=("f" * 32,))
    source = replace(former, revision=ctx.registry.write(former))
    with pytest.raises(EpochChanged):
        restore(ctx, source.name, token(replace(source, epoch="f" * 32), {0: 1, 1: 1}), "res-wrong-then")
    assert topics.epoch_of(clients.admin(ctx.bootstrap), "res-wrong-then") is None
    with ctx.repository(source).lease("other", "compact"), pytest.raises(JobRunning):
        restore(ctx, source.name, fine, "res-wrong-then")


def test_topics_of_others_are_left_alone(ctx):
    source = make_table(ctx, "res-topic", 2)
    write(ctx.bootstrap, source, 50)
    at = token(source, ends(ctx, source))
    client = clients.admin(ctx.bootstrap)
    topics.create(client, "res-topic-used", 2, 1, topics.wal_settings(1_000_000, 1))
    produce(ctx.bootstrap, "res-topic-used", [(b"somebody", b"else's")])
    topics.create(client, "res-topic-odd", 5, 1, topics.wal_settings(1_000_000, 1))
    before = topics.epoch_of(client, "res-topic-used")
    for name in ("res-topic-used", "res-topic-odd"):
        with pytest.raises(TableExists, match="there is a topic"):
            restore(ctx, source.name, at, name)
    assert topics.epoch_of(client, "res-topic-used") == before


def test_a_failed_restore_leaves_no_topic_and_no_files(ctx, monkeypatch):
    source = make_table(ctx, "res-fail", 2)
    write(ctx.bootstrap, source, 50)

    def broken(**_):
        raise RuntimeError("on purpose")

    monkeypatch.setattr("batch.jobs.restore.Manifest", broken)
    with pytest.raises(RuntimeError, match="on purpose"):
        restore(ctx, source.name, token(source, ends(ctx, source)), "res-fail-then")
    assert topics.epoch_of(clients.admin(ctx.bootstrap), "res-fail-then") is None
    assert [
        name
        for name in ctx.storage.list("res-fail-then")
        if ctx.storage.list(f"res-fail-then/{name}/snapshots") not in ([], ["_JOB"])
    ] == []
    with pytest.raises(NoSuchTable):
        ctx.registry.table("res-fail-then")


@pytest.mark.slow
def test_killed_at_any_step_it_leaves_nothing_and_can_be_asked_for_again(ctx, tmp_path):
    source = make_table(ctx, "res-kill", 2)
    write(ctx.bootstrap, source, 200)
    upto = ends(ctx, source)
    at = token(source, upto)
    may_crash = crash_folder(tmp_path)
    for step in ("1", "2", "3", "4", "5"):
        _killed(ctx, source, f"restore {at} res-kill-then", f"restore:{step}", may_crash)
        with pytest.raises(NoSuchTable):
            ctx.registry.table("res-kill-then")
    done = _when_free(ctx, source, at, "res-kill-then")
    check(ctx, source, done, upto)
    assert ctx.repository(done.table).current().name == done.manifest.name


def _killed(ctx, source, job, point, may_crash):
    """Run a job that dies at a point, once the lease of the one that died before has run out."""
    crashes = {"LOGSTORE_TEST_CRASH": point, "LOGSTORE_TEST_CRASH_DIR": may_crash}

    def died():
        done = drive(ctx, source, job, **crashes)
        assert done.returncode == -9 or "JobRunning" in done.stderr, done.stderr
        return done.returncode == -9

    until(f"the job dies at {point}", died)


def _when_free(ctx, source, at, name):
    """The killed job's lease runs out after a second or so."""

    def attempt():
        try:
            return restore(ctx, source.name, at, name)
        except JobRunning:
            return None

    return until("the dead job's lease is over", attempt)


def test_a_lost_log_is_restored_from_the_archive(ctx):
    source = make_table(ctx, "res-lost", 2)
    write(ctx.bootstrap, source, 300)
    upto = ends(ctx, source)
    expected = {partition: rows(live(ctx.bootstrap, source, partition, cut)) for partition, cut in upto.items()}
    archive(ctx, source)
    topics.delete(clients.admin(ctx.bootstrap), source.topic)
    done = restore(ctx, source.name, token(source, upto), "res-lost-then")
    assert {partition: rows(content(ctx, done.manifest, partition)) for partition in upto} == expected
    topics.create(clients.admin(ctx.bootstrap), source.topic, 2, 1, topics.wal_settings(1_000_000, 1))
    write(ctx.bootstrap, source, 10)  # another topic's records are not the table's
    again = restore(ctx, source.name, token(source, upto), "res-lost-again")
    assert digests(again.manifest) == digests(done.manifest)
    with pytest.raises(UsageError, match="its log ends at"):
        restore(ctx, source.name, token(source, {p: end + 1 for p, end in upto.items()}), "res-lost-more")
    forks.promote(ctx.registry, "res-lost-then", source.name)  # the way back
    assert ctx.registry.table(source.name).epoch == done.table.epoch
    topics.delete(clients.admin(ctx.bootstrap), source.topic)
    forks.promote(ctx.registry, "res-lost-again", "res-lost-then", discard_newer=True)  # over one whose topic is gone
    assert ctx.registry.table("res-lost-then").epoch == again.table.epoch


def test_without_archive_a_lost_log_is_said_to_be_lost(ctx):
    source = make_table(ctx, "res-gone", 1)
    write(ctx.bootstrap, source, 100)
    archive(ctx, source)
    then_ms = folded(ctx.bootstrap, source, 0, 100).log_time_ms
    _pass(then_ms)
    write(ctx.bootstrap, source, 200, seed=2)
    topics.truncate(clients.admin(ctx.bootstrap), source.topic, {0: 200})
    with pytest.raises(LogTruncated):
        restore(ctx, source.name, token(source, {0: 250}), "res-gone-then")
    with pytest.raises(LogTruncated, match="is not known"):  # the first that is later may be among those that are gone
        restore(ctx, source.name, _rfc3339(then_ms), "res-gone-then")
    assert topics.epoch_of(clients.admin(ctx.bootstrap), "res-gone-then") is None
    assert restore(ctx, source.name, token(source, {0: 90}), "res-gone-then").records == 90


@pytest.mark.parametrize(("at", "opened"), [(3, [1, 1, 1, 1, 1]), (1, [1, 1, 1, 0, 0])])
def test_a_time_opens_the_archived_files_that_it_needs_and_no_others(ctx, tmp_path, at, opened):
    """Where the log is trimmed, the archive tells where a time lies: in the file behind those that are folded."""
    source = make_table(ctx, f"res-segments-{at}", 1)
    for seed in range(5):
        write(ctx.bootstrap, source, 100, seed=seed)
        archive(ctx, source)
        _pass(ctx.archive(source).segments()[-1].latest_ms)
    topics.truncate(clients.admin(ctx.bootstrap), source.topic, {0: 500})
    segments, seen = ctx.archive(source).segments(), []
    counting = context(ctx.bootstrap, tmp_path, InProcess())
    counting.storage = _Opened(ctx.storage.url, seen)
    made = restore(counting, source.name, _rfc3339(segments[at].latest_ms), f"res-segments-{at}-then")
    assert made.records == 100 * (at + 1)
    assert [seen.count(segment.path) for segment in segments] == opened


class _Opened(Storage):
    """A storage on a disk that keeps which files were opened."""

    def __init__(self, url, opened):
        super().__init__(url)
        self._opened = opened

    def local(self, path):
        self._opened.append(path)
        return super().local(path)


def _pass(moment_ms):
    """Wait until the broker's clock, which is this machine's, has moved on."""
    until("the clock has moved on", lambda: time.time_ns() // 1_000_000 > moment_ms)


def _rfc3339(moment_ms):
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds")


def test_diff_names_what_is_not_the_same(ctx):
    source = make_table(ctx, "res-diff", 2)
    produce(ctx.bootstrap, source.topic, [(b"k%d" % n, b"v%d" % n) for n in range(20)])
    at = token(source, ends(ctx, source))
    restore(ctx, source.name, at, "res-diff-then")
    assert diff(ctx, source.name, "res-diff-then").same
    produce(ctx.bootstrap, source.topic, [(b"k3", b"other"), (b"k4", None), (b"new", b"")])
    found = diff(ctx, source.name, "res-diff-then")
    assert found.counts == {"only_left": 1, "only_right": 1, "different": 1, "same": 18}
    assert [one[:2] for one in found.keys] == [("different", b"k3"), ("only_right", b"k4"), ("only_left", b"new")]
    assert diff(ctx, f"{source.name}@{at}", "res-diff-then").same
    assert diff(ctx, source.name, f"{source.name}@{at}", listed=1).keys == found.keys[:1]
    wider = make_table(ctx, "res-diff-wide", 5)  # another number of partitions
    produce(ctx.bootstrap, wider.topic, [(b"k%d" % n, b"v%d" % n) for n in range(20)])
    assert diff(ctx, wider.name, "res-diff-then").same
    with pytest.raises(NoSuchTable):
        diff(ctx, source.name, "res-diff-nobody")
