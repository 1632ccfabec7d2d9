"""Changes of the feed as bytes: a key and its record, as msgpack."""

import msgpack

from logstore.view.feed.acknowledgement import MarkKey, MarkRecord
from logstore.view.feed.adoption_records import AdoptionKey, AdoptionRecord
from logstore.view.feed.fields import unreadable
from logstore.view.feed.key import FeedKey, R
from logstore.view.feed.log_records import (
    BarrierKey,
    ClockKey,
    ClockRecord,
    EndKey,
    EndsKey,
    EndsRecord,
    LogKey,
    LogPointRecord,
    LogRecord,
)
from logstore.view.feed.node_records import NodesKey, NodesRecord
from logstore.view.feed.position_records import AppliedKey, AppliedRecord, TimesKey, TimesRecord
from logstore.view.feed.table_records import ScheduleKey, ScheduleRecord, TablesKey, TablesRecord
from logstore.view.feed.view_records import ViewKey, ViewRecord

AnyKey = (
    TablesKey | NodesKey | LogKey | MarkKey | EndsKey | ViewKey | AdoptionKey | AppliedKey | TimesKey | ScheduleKey
    | EndKey | BarrierKey | ClockKey
)  # fmt: skip
AnyRecord = (
    TablesRecord | NodesRecord | LogRecord | MarkRecord | EndsRecord | ViewRecord | AdoptionRecord | AppliedRecord
    | TimesRecord | ScheduleRecord | LogPointRecord | ClockRecord
)  # fmt: skip
Change = tuple[AnyKey, AnyRecord | None]  # the record is None: the key is removed

_PLAIN = {key.word: key for key in (TablesKey(), NodesKey(), LogKey(), MarkKey(), EndsKey(), ClockKey())}
_OF_TABLE = {key.word: key for key in (ViewKey, AdoptionKey)}
_OF_PARTITION = {key.word: key for key in (AppliedKey, TimesKey, EndKey, BarrierKey)}


def encode_change(key: FeedKey[R], record: R | None) -> bytes:
    """Bytes of a change, for the way down."""
    value = None if record is None else record.encode()
    return bytes(msgpack.packb((key.encode(), value)))


def decode_change(raw: object) -> Change | None:
    """The change that a msgpack value says; None when it is of a later version's key. Raises UnreadableRecord."""
    if not (isinstance(raw, tuple) and len(raw) >= 2):
        raise unreadable("a change", raw)
    key = decode_key(raw[0])
    if key is None:
        return None
    return key, None if raw[1] is None else key.record.decode(raw[1])


def decode_key(raw: object) -> AnyKey | None:
    """The key that a msgpack value says; None when it is a later version's."""
    match raw:
        case (str(word), str(epoch), int(partition)) if word in _OF_PARTITION:
            return _OF_PARTITION[word](epoch, partition)
        case ("schedule", str(table), str(epoch)):
            return ScheduleKey(table, epoch)
        case (str(word), str(table), str(epoch), int(partition)) if word in _OF_TABLE:
            return _OF_TABLE[word](table, epoch, partition)
        case str(word) | (str(word),):
            return _PLAIN.get(word)
    return None
