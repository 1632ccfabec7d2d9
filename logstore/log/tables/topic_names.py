"""Topic names of tables: the table's own name, and `NAME.2`, `NAME.3` ... for a table that is made again.

A name is given to one topic, ever. Writers that still know a dropped table hold its topic's name; were it given to the
next table, their records would be placed by the former partition count and acknowledged with tokens of a log that is
gone.

    generation 1    users       a name that was never used
    generation n    users.n     after n - 1 earlier logs (the definition's `former_epochs` and its own epoch)
"""

from collections.abc import Collection, Iterator
from itertools import count

from logstore.log.tables.registry import Definitions
from logstore.model.table import Table


def candidates(definitions: Definitions, name: str, existing: Collection[str]) -> Iterator[str]:
    """Names for the topic of a table that is about to be made, best one first.

    `existing`: the broker's topics. A name that stands there may be that of a create which was killed: try it, and
    take the next one when it is not. Names that Kafka takes for another one's (`.` and `_` are one to its metrics) are
    left out.
    """
    spent = {_folded(topic) for table in definitions.tables.values() for topic in (table.topic, *_given(table))}
    clashing = {_folded(topic) for topic in existing if topic not in (name, topic_of(name, 1))}
    for generation in count(generation_of(definitions.tables.get(name))):
        topic = topic_of(name, generation)
        if _folded(topic) not in spent and (topic in existing or _folded(topic) not in clashing):
            yield topic


def topic_of(name: str, generation: int) -> str:
    """The topic's name of a table's n-th log."""
    return name if generation == 1 else f"{name}.{generation}"


def generation_of(before: Table | None) -> int:
    """The generation that comes after a dropped table; promotions and repairs count as logs of the name too."""
    return 1 if before is None else len(before.former_epochs) + 2


def _given(table: Table) -> Iterator[str]:
    """Names that logs of the table may have had."""
    return (topic_of(table.name, generation) for generation in range(1, generation_of(table)))


def _folded(topic: str) -> str:
    return topic.replace(".", "_")
