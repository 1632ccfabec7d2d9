"""logstore: a key-value store whose database is the log.

    with logstore.Store("localhost:9092", "http://localhost:8080") as store:
        position = store.put("users", "ada", "Ada Lovelace")
        row = store.get("users", "ada", after=position)

The names below are loaded on first use, so that `import logstore` costs nothing.
"""

TYPE_CHECKING = False  # true to a type checker; `typing` itself would be most of what this import costs
if TYPE_CHECKING:
    from logstore.client.admin.admin import Admin
    from logstore.client.aio import AsyncStore
    from logstore.client.conditional.outcome import Outcome
    from logstore.client.memory.store import MemoryStore
    from logstore.client.read.row import Row
    from logstore.client.store import Store
    from logstore.client.wide.row import WideRow
    from logstore.client.wide.row_edit import RowEdit
    from logstore.client.write.pending import Pending
    from logstore.model.errors import (
        AccessDenied,
        AuthenticationFailed,
        BatchFailed,
        BatchUnknown,
        ConsistencyTimeout,
        EpochChanged,
        InvalidWrite,
        LogStoreError,
        LogUnreachable,
        NoSiblings,
        NoSuchTable,
        NotConditional,
        NotExpiring,
        NotWide,
        NotYet,
        Overloaded,
        SeveralValues,
        Stopped,
        Undecodable,
        Unknown,
        UsageError,
        WideTable,
        WriteFailed,
    )
    from logstore.model.folding.sibling import Sibling
    from logstore.model.position import Position
    from logstore.model.wide.cell import WideCell
    from logstore.replica.replica import Replica

__version__ = "0.1.0"

__all__ = [
    "AccessDenied", "Admin", "AsyncStore", "AuthenticationFailed", "BatchFailed", "BatchUnknown", "ConsistencyTimeout",
    "EpochChanged", "InvalidWrite", "LogStoreError", "LogUnreachable", "MemoryStore", "NoSiblings", "NoSuchTable",
    "NotConditional", "NotExpiring", "NotWide", "NotYet", "Outcome", "Overloaded", "Pending", "Position", "Replica",
    "Row", "RowEdit", "SeveralValues", "Sibling", "Stopped", "Store", "Undecodable", "Unknown", "UsageError",
    "WideCell", "WideRow", "WideTable", "WriteFailed", "__version__",
]  # fmt: skip

_HOMES = {
    "Admin": "logstore.client.admin.admin",
    "AsyncStore": "logstore.client.aio",
    "MemoryStore": "logstore.client.memory.store",
    "Outcome": "logstore.client.conditional.outcome",
    "Pending": "logstore.client.write.pending",
    "Position": "logstore.model.position",
    "Replica": "logstore.replica.replica",
    "Row": "logstore.client.read.row",
    "RowEdit": "logstore.client.wide.row_edit",
    "Sibling": "logstore.model.folding.sibling",
    "Store": "logstore.client.store",
    "WideCell": "logstore.model.wide.cell",
    "WideRow": "logstore.client.wide.row",
}


def __getattr__(name: str) -> object:
    from importlib import import_module  # noqa: PLC0415 - only who asks for a name

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Replica":
        from logstore.extras import needing  # noqa: PLC0415 - only who asks for what an installation may lack

        with needing("node"):
            return getattr(import_module(_HOMES[name]), name)
    return getattr(import_module(_HOMES.get(name, "logstore.model.errors")), name)
