"""Every error a caller can meet, by what the caller can do about it.

LogStoreError
├── UsageError                 the call is wrong; it will never succeed as it stands
│   ├── BadKey                 empty, or longer than 65,535 bytes
│   ├── ValueTooLarge          longer than the table's max_value_bytes
│   ├── BadToken               not a position in text
│   ├── BadDefinition          a table that cannot be: name, partitions, limits
│   ├── NoSuchTable            no definition of that name
│   ├── NotConditional         a conditional write to a table that takes none
│   ├── NotExpiring            a TTL in a write to a table whose rows stay
│   ├── NotWide                an edit, or a read of cells, of a table whose rows have one value
│   ├── WideTable              a read of values, of a table whose rows have cells
│   ├── NoSiblings             `seen` in a write to a table that keeps no siblings
│   ├── TableExists            the name is taken
│   ├── NoSuchSnapshot         no snapshot of that name
│   ├── NotRetained            nothing that is kept can answer for that position
│   ├── NotTrimmable           the log is still needed there
│   └── SetupError             this machine lacks something: Java, jars, a free port, a directory
├── NotYet                     right, but not now: try again                         (retriable)
│   ├── ConsistencyTimeout     the replica did not reach the asked position in time
│   ├── LogUnreachable         Kafka does not answer
│   │   └── AccessDenied       Kafka answers, and refuses this client what it asks (not retriable: an ACL lacks)
│   │       └── AuthenticationFailed   it does not believe who this client is, or the client not who Kafka is
│   ├── Overloaded             a queue is full
│   ├── DiskFull               no room for a view; it goes on by itself once there is
│   ├── Starting               the partition is being opened here
│   ├── NotOwner               another node serves the partition (`owner`)
│   ├── ServerUnreachable      the HTTP endpoint does not answer, or not in HTTP
│   ├── StorageUnreachable     the storage of archive and snapshots does not answer
│   ├── JobRunning             another batch job works on the table
│   ├── Conflict               somebody else moved the pointer first
│   ├── NotApplied             the write is in the log, and not known to be applied (not retriable: it is written)
│   └── StillPending           the write is on its way: ask again
├── WriteFailed                the write changed nothing, for sure               (retriable or not: see the attribute)
│   ├── WriteDenied            an ACL lacks (an AccessDenied, too)
│   ├── InvalidWrite           the log holds it, and the row as it stands refuses it (`reason`, `position`)
│   └── BatchFailed            some of many writes changed nothing (`failed`), all others are in the log
├── Unknown                    the write may or may not be in the log
│   └── BatchUnknown           some of many writes may or may not be in the log (`unknown`, `failed`)
├── SeveralValues              a row has values side by side, and one was asked for (`siblings`)
├── Undecodable                a value is not what the program's codec reads
├── ServerError                the server answered with a problem this client has no class for
└── Stopped                    the partition refuses to answer until somebody looks
    ├── LogGap                 offsets that the fold needs are missing
    ├── LogTruncated           the log begins after, or ends before, where the view stands
    ├── EpochChanged           the topic was deleted and created again
    ├── Unsupported            a record that only a later build can fold
    ├── TopicMisconfigured     the topic's partitions or settings contradict the definition
    ├── SnapshotRefused        a node or an audit found a snapshot not to be what the log says
    └── Corrupted              bytes that fail their checksum, order or format

try:
    store.put("users", "ada", "...")
except NotYet:
    ...                        # again, or later
except LogStoreError as error:
    sys.exit(error)            # the message names the next step
"""

from collections.abc import Sequence
from typing import Any


class LogStoreError(Exception):
    """Base of all errors of this package. `retriable`: the same call may succeed later."""

    retriable = False


class UsageError(LogStoreError, ValueError):
    """The call is wrong and changed nothing."""


class BadKey(UsageError):
    """A row key must have 1 to 65,535 bytes."""

    def __init__(self, length: int) -> None:
        super().__init__(f"a row key must have 1 to 65,535 bytes, this one has {length:,}")


class ValueTooLarge(UsageError):
    """A value is longer than its table allows."""

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(
            f"a value of this table must have at most {limit:,} bytes, this one has {length:,}; split it, "
            "or create a table with a larger --max-value-bytes"
        )


class BadToken(UsageError):
    """A token is not of the form `<epoch>-<partition>-<next offset>[,...]`."""


class BadDefinition(UsageError):
    """A table definition that cannot be: a bad name, partition count or limit."""


class NoSuchTable(UsageError):
    """The store has no table of that name."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"there is no table {table!r}; `logstore table list` shows what there is, `logstore table create {table}` "
            "makes it"
        )
        self.table = table


class NotExpiring(UsageError):
    """A TTL in a write to a table whose rows stay."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"the rows of table {table!r} stay until they are deleted: it takes no TTL; `logstore table create NAME "
            "--expiring` makes a table that does"
        )


class NotWide(UsageError):
    """Cells are asked for, or edited, in a table whose rows have one value each."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"the rows of table {table!r} have one value each, and no cells: put and get are for them; `logstore table "
            "create NAME --wide --family FAMILY` makes a table of wide rows"
        )
        self.table = table


class WideTable(UsageError):
    """A row's one value is asked for in a table whose rows have cells."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"the rows of table {table!r} have cells, not one value: `Store.get_row`, `get_rows` and `scan_rows` read "
            "them, `logstore get`, `scan` and `export --cells`, and HTTP"
        )
        self.table = table


class NoSiblings(UsageError):
    """A write that says what its writer had seen, to a table that keeps no siblings."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"table {table!r} keeps one value of a row, the last: a write says nothing of what it had seen; `logstore "
            "table create NAME --siblings` makes a table that keeps those of writers who did not know of each other"
        )
        self.table = table


class NotConditional(UsageError):
    """The table takes no conditional writes: whether it does is chosen when it is made."""

    def __init__(self, table: str) -> None:
        super().__init__(
            f"table {table!r} takes no conditions, ids, increments or appends: make one that does with `logstore table "
            "create NAME --conditional`, and copy the rows; put and delete need no such table"
        )
        self.table = table


class TableExists(UsageError):
    """The name, or the topic, is taken."""


class NoSuchSnapshot(UsageError):
    """The table has no snapshot of that name."""


class NotRetained(UsageError):
    """No retained snapshot or version can answer for that position; the message names the `restore` command."""


class NotTrimmable(UsageError):
    """The log must not be shortened there: no verified snapshot and archive stand for it."""


class SetupError(UsageError):
    """The machine lacks something the store needs; the message says what and how to get it."""


class NotYet(LogStoreError):
    """The store is sound but cannot answer now."""

    retriable = True


class ConsistencyTimeout(NotYet):
    """The asked position was not applied within the deadline. Nothing stale was returned."""


class LogUnreachable(NotYet):
    """Kafka does not answer."""


class AccessDenied(LogUnreachable):
    """Kafka refuses what this client asks for; the message names the user and the ACL that lacks.

    A LogUnreachable, since what runs goes on with what it has, as without Kafka; but to ask again helps nobody.
    """

    retriable = False


class AuthenticationFailed(AccessDenied):
    """Kafka refuses a password, token or certificate, or shows a certificate that this client does not trust."""


class Overloaded(NotYet):
    """A bounded queue is full."""


class DiskFull(NotYet):
    """The disk has no room for a view. Nothing has changed; the view goes on by itself once there is room."""


class Starting(NotYet):
    """The partition is being opened on this node."""


class NotOwner(NotYet):
    """Another node serves the partition; `owner` is its URL, or None while nobody does."""

    def __init__(self, message: str, owner: str | None = None) -> None:
        super().__init__(message)
        self.owner = owner


class ServerUnreachable(NotYet):
    """The HTTP endpoint does not answer, or what it sends is no HTTP answer, or it is cut off."""


class StorageUnreachable(NotYet):
    """The storage of archive and snapshots does not answer, or is full."""


class JobRunning(NotYet):
    """Another batch job works on the table."""


class Conflict(NotYet):
    """Another process moved the pointer first; nothing has changed."""


class NotApplied(NotYet):
    """A write is in the log, at `position`, and no reader has told in time that it has applied it."""

    retriable = False

    def __init__(self, message: str, position: object) -> None:
        super().__init__(message)
        self.position = position


class StillPending(NotYet, TimeoutError):
    """No acknowledgement came within the caller's patience; the write is still on its way."""


class WriteFailed(LogStoreError):
    """The write is certainly not in the log, or refused there; `retriable`: whether the same one may succeed later."""

    def __init__(self, message: str, *, retriable: bool = False) -> None:
        super().__init__(message)
        self.retriable = retriable


class WriteDenied(WriteFailed, AccessDenied):
    """Kafka lets this client not write there; the write is certainly not in the log."""


class Unknown(LogStoreError):
    """No acknowledgement came: the write may or may not be in the log. Read the row before writing again.

    `id`: of a conditional write, with which `outcome_of` tells what became of it; `position`: where it is in the log,
    when that much is known.
    """

    def __init__(self, message: str, *, id: bytes | None = None, position: object = None) -> None:  # noqa: A002 - as the header is called
        super().__init__(message)
        self.id, self.position = id, position


class InvalidWrite(WriteFailed):
    """The log holds a write that cannot be done upon the row as it stands, and so changed nothing.

    `reason`: a word, as of an outcome that is invalid; `position`: where it stands.
    """

    def __init__(self, message: str, reason: str, position: object) -> None:
        super().__init__(message)
        self.reason, self.position = reason, position


class BatchFailed(WriteFailed):
    """Some of many writes are certainly not in the log, or refused there; every other one is acknowledged.

    `failed`: how many; `failed_places`: ranges of places in the order of writing, at most 1,000 (a pipeline gives none:
    ask its futures); `first`: the first error; `position` covers what was acknowledged. Places from `total` on were
    never tried.
    """

    def __init__(
        self,
        total: int,
        failed: int,
        first: LogStoreError,
        *,
        failed_places: Sequence[range] = (),
        position: object = None,
    ) -> None:
        super().__init__(
            f"of {total:,} writes {failed:,} {_fate(first)}{_places(failed_places)}: {first}",
            retriable=first.retriable,
        )
        self.total, self.failed, self.unknown, self.first, self.position = total, failed, 0, first, position
        self.failed_places, self.unknown_places = tuple(failed_places[:_MOST]), ()


class BatchUnknown(Unknown):
    """Many writes, of which `unknown` may or may not be in the log, and `failed` certainly are not.

    Fields as in BatchFailed, and `unknown_places`: they may hold acknowledged writes too (put_many accounts by the
    chunk).
    """

    def __init__(
        self,
        total: int,
        failed: int,
        unknown: int,
        first: LogStoreError,
        *,
        failed_places: Sequence[range] = (),
        unknown_places: Sequence[range] = (),
        position: object = None,
    ) -> None:
        super().__init__(
            f"of {total:,} writes {unknown:,} may or may not be in the log{_places(unknown_places)} and {failed:,} are "
            f"not: {first}"
        )
        self.total, self.failed, self.unknown, self.first, self.position = total, failed, unknown, first, position
        self.failed_places, self.unknown_places = tuple(failed_places[:_MOST]), tuple(unknown_places[:_MOST])


_MOST = 1000


def _fate(first: LogStoreError) -> str:
    return "changed nothing" if isinstance(first, InvalidWrite) else "are not in the log"


def _places(ranges: Sequence[range]) -> str:
    listed = ", ".join(f"{r.start}-{r.stop - 1}" for r in ranges[:5]) + (", ..." if len(ranges) > 5 else "")
    return f" (places {listed})" if ranges else ""


class SeveralValues(LogStoreError):
    """A row has several values side by side, and one was asked for: which of them counts is the program's to say.

    `siblings`: all of them, the oldest first, each with `version` and `value`; `version`: the row's, for `seen=`.
    """

    def __init__(self, key: bytes, version: int, siblings: tuple[Any, ...]) -> None:
        super().__init__(
            f"row {key!r} has {len(siblings)} values side by side: merge those in `siblings`, and put the result with "
            f"seen={version}, the row's version"
        )
        self.key, self.version, self.siblings = key, version, siblings


class Undecodable(LogStoreError):
    """A value that the codec of a typed table cannot read: another program, or an earlier form of it, wrote it."""


class ServerError(LogStoreError):
    """The server answered with a problem document that has no class of its own; `status` and `problem` hold it."""

    def __init__(self, message: str, status: int, problem: dict[str, object]) -> None:
        super().__init__(message)
        self.status, self.problem = status, problem
        self.retriable = status in (429, 503, 504)


class Stopped(LogStoreError):
    """A partition refuses to answer until somebody looks; the message says which, why, and what helps."""

    word = "stopped"


class LogGap(Stopped):
    """Offsets that the fold needs are missing: loss, truncation, or a transactional writer's markers."""

    word = "gap"


class LogTruncated(Stopped):
    """The log begins after, or ends before, the view's position."""

    word = "truncated"


class EpochChanged(Stopped):
    """The topic was deleted and created again: its offsets mean something else now."""

    word = "epoch-changed"


class Unsupported(Stopped):
    """A record of a later format, or of an operation this build does not fold yet."""

    word = "unsupported"


class TopicMisconfigured(Stopped):
    """The topic's partition count or settings contradict the table's definition."""

    word = "misconfigured"


class SnapshotRefused(Stopped):
    """A node or an audit found a snapshot not to be what the log says; nothing stands on it until that is settled."""

    word = "refused"


class Corrupted(Stopped):
    """Bytes that fail their checksum, order or format."""

    word = "corrupted"
