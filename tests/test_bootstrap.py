"""What a new view begins with, when the storage answers and when it does not."""

import pytest
from support_log import produce, until
from support_snapshot import judge, make_snapshot
from support_worker import make_table

from logstore.log import topics
from logstore.log.kafka.clients import admin
from logstore.log.kafka.offsets import bounds
from logstore.model.errors import NoSuchSnapshot, NotYet
from logstore.snapshot.verdicts import AUDITOR
from logstore.view.feed.adoption_records import AdoptionKey
from logstore.view.feed.server import FeedServer
from streaming.adoption.bootstrap import Bootstrapper
from streaming.adoption.progress import AdoptionProgress
from streaming.adoption.snapshot_fetcher import SnapshotFetcher
from streaming.lane.disk.opened_view import Bootstrap, BootstrapPending
from streaming.lane.target import Target


@pytest.fixture
def bootstrapper(kafka, tmp_path):
    """A node's bootstrapper, and where its storage lies."""
    feed = FeedServer(tmp_path / "feed.sock")
    progress = AdoptionProgress(feed)
    fetcher = SnapshotFetcher(tmp_path, "n", progress, fetch_mb_s=None)
    client = admin(kafka.bootstrap)
    found = Bootstrapper(
        fetcher, progress, lambda topic, partition: bounds(client, topic, [partition])[partition].start
    )
    found.fetcher = fetcher
    yield found
    found.close()
    feed.close()


def asked(bootstrapper, target):
    """Ask as the lane does; None while it is being found out."""
    try:
        return [bootstrapper(target)]
    except BootstrapPending:
        return None


def answer(bootstrapper, target):
    """Ask until there is an answer."""
    return until("there is an answer", lambda: asked(bootstrapper, target))[0]


def written(kafka, count=10, **more):
    table = make_table(kafka.bootstrap, partitions=1, **more)
    produce(kafka.bootstrap, table.topic, [(b"k%d" % n, b"v") for n in range(count)])
    return table, Target(table, 0, 0)


def unreachable(bootstrapper, tmp_path):
    """Where a folder should be is a file."""
    (tmp_path / "file").touch()
    bootstrapper.fetcher.at(f"file://{tmp_path}/file/storage")


def test_without_a_snapshot_it_is_the_log_from_the_beginning(kafka, tmp_path, bootstrapper):
    bootstrapper.fetcher.at(f"file://{tmp_path}/storage")
    _, target = written(kafka)
    assert answer(bootstrapper, target) == Bootstrap()


def test_with_one_it_is_the_snapshot_and_what_was_skipped_below_it(kafka, tmp_path, bootstrapper):
    bootstrapper.fetcher.at(f"file://{tmp_path}/storage")
    table, target = written(kafka)
    produce(kafka.bootstrap, table.topic, [(None, b"garbage")])
    manifest = make_snapshot(kafka.bootstrap, table, f"file://{tmp_path}/storage", word="agree")
    seed = answer(bootstrapper, target)
    assert (seed.base.snapshot, seed.base.cut, seed.base.entries) == (manifest.name, 11, 10)
    assert seed.base.root == manifest.name
    assert seed.quarantine == ({"null-key": 1}, [(10, "null-key")])


def test_a_damaged_snapshot_gives_way_to_the_older_one_and_then_to_the_log(kafka, tmp_path, bootstrapper):
    bootstrapper.fetcher.at(f"file://{tmp_path}/storage")
    table, target = written(kafka)
    url = f"file://{tmp_path}/storage"
    first, second = (make_snapshot(kafka.bootstrap, table, url, word="agree") for _ in range(2))
    damage(tmp_path, second)
    assert answer(bootstrapper, target).base.snapshot == first.name
    damage(tmp_path, first)
    for folder in tmp_path.glob("snapshots/*/*/*/*"):
        folder.rename(tmp_path / folder.name)
    assert answer(bootstrapper, target) == Bootstrap()
    topics.truncate(admin(kafka.bootstrap), table.topic, {0: 5})
    with pytest.raises(NoSuchSnapshot, match="does not begin at 0"):
        answer(bootstrapper, target)


def damage(tmp_path, manifest):
    (file,) = tmp_path.glob(f"storage/*/*/snapshots/{manifest.name}/*.sst")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.unlink()
    file.write_bytes(raw)


def test_an_unreachable_storage_holds_nobody_whose_log_is_whole(kafka, tmp_path, bootstrapper):
    unreachable(bootstrapper, tmp_path)
    table, target = written(kafka)
    assert answer(bootstrapper, target) == Bootstrap()
    topics.truncate(admin(kafka.bootstrap), table.topic, {0: 5})
    with pytest.raises(NotYet, match="does not begin at 0"):
        answer(bootstrapper, target)


def test_a_restored_table_is_held_until_its_snapshot_is_there(kafka, tmp_path, bootstrapper):
    unreachable(bootstrapper, tmp_path)
    table, target = written(kafka, base={"snapshot": "00000000000001-deadbeef"})
    with pytest.raises(NotYet, match="00000000000001-deadbeef"):
        answer(bootstrapper, target)
    bootstrapper.fetcher.at(f"file://{tmp_path}/storage")
    with pytest.raises(NoSuchSnapshot, match="00000000000001-deadbeef"):
        answer(bootstrapper, target)
    manifest = make_snapshot(kafka.bootstrap, table, f"file://{tmp_path}/storage")
    assert answer(bootstrapper, target).base.snapshot == manifest.name


def test_until_it_is_known_where_the_storage_lies_nothing_begins(kafka, tmp_path, bootstrapper):
    _, target = written(kafka)
    with pytest.raises(AssertionError, match="still not"):
        until("there is an answer", lambda: asked(bootstrapper, target), timeout_s=0.5)
    bootstrapper.fetcher.at(f"file://{tmp_path}/storage")
    assert answer(bootstrapper, target) == Bootstrap()


def test_a_refused_snapshot_is_as_if_it_were_not_there_and_an_unproved_one_is_the_last_resort(
    kafka, tmp_path, bootstrapper
):
    url = f"file://{tmp_path}/storage"
    bootstrapper.fetcher.at(url)
    table, target = written(kafka)
    good = make_snapshot(kafka.bootstrap, table, url, word="agree")
    make_snapshot(kafka.bootstrap, table, url, word="refuse")
    unproved = make_snapshot(kafka.bootstrap, table, url)
    assert answer(bootstrapper, target).base.snapshot == good.name  # what nobody has compared waits
    assert shown(bootstrapper, target).proof == "proved"
    topics.truncate(admin(kafka.bootstrap), table.topic, {0: good.parts[0].cut + 1})
    assert answer(bootstrapper, target).base.snapshot == unproved.name  # nothing that is proved reaches as far
    assert shown(bootstrapper, target).proof == "unproved"
    assert f"`logstore batch audit {table.name}`" in shown(bootstrapper, target).reason
    judge(repository(bootstrapper, table), unproved, "refuse", judge=AUDITOR)
    until("the verdict is read", lambda: bootstrapper.fetcher.verdicts(table).proof(unproved.name, 0).word == "refused")
    assert answer(bootstrapper, target) == Bootstrap()  # and the lane stops: the log does not begin there
    judge(repository(bootstrapper, table), unproved, "agree", judge=AUDITOR)
    until("the verdict is read", lambda: bootstrapper.fetcher.verdicts(table).proof(unproved.name, 0).word == "proved")
    assert answer(bootstrapper, target).base.snapshot == unproved.name


def test_without_a_proved_snapshot_a_log_that_is_whole_is_the_beginning(kafka, tmp_path, bootstrapper):
    url = f"file://{tmp_path}/storage"
    bootstrapper.fetcher.at(url)
    table, target = written(kafka)
    make_snapshot(kafka.bootstrap, table, url)
    assert answer(bootstrapper, target) == Bootstrap()


def test_what_a_rebuild_replaced_is_begun_from_while_the_rebuilt_one_is_unproved(kafka, tmp_path, bootstrapper):
    url = f"file://{tmp_path}/storage"
    bootstrapper.fetcher.at(url)
    table, target = written(kafka)
    good = make_snapshot(kafka.bootstrap, table, url, word="agree")
    rebuilt = make_snapshot(kafka.bootstrap, table, url, move=False)
    found = repository(bootstrapper, table)
    found.move(found.current(), rebuilt.name, "rebuild", anew=True)
    assert (found.line(), found.candidates()) == ([rebuilt.name], [rebuilt.name, good.name])
    assert answer(bootstrapper, target).base.snapshot == good.name


def repository(bootstrapper, table):
    return bootstrapper.fetcher.repository(table)


def shown(bootstrapper, target):
    return bootstrapper.fetcher._progress._published[AdoptionKey(target.table.name, *target.key)]
