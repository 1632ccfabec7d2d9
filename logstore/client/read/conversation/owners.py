"""Owners: the nodes that are asked for keys, as nodes have named them, and those that do not answer from here."""

from logstore.client.transport.origin import Origin
from logstore.model.partitioning.partitioning import Partitioning

_BEYOND_S = 30.0


class Owners:
    """Owners as far as they are known, from one URL; whatever is not known is asked there."""

    def __init__(self, url: str) -> None:
        """Take the address apart; raises UsageError when `url` is no http(s) URL."""
        Origin.of(url)
        self.url = url.rstrip("/")
        self._owners: dict[tuple[str, int], str] = {}
        self._partitionings: dict[str, Partitioning] = {}
        self._beyond: dict[str, float] = {}  # owners that do not answer from here, and until when that is believed

    def of(self, table: str, key: bytes | None) -> str:
        """URL of the node to ask for a key; None: for something that has no owner."""
        partitioning = self._partitionings.get(table)
        if key is None or partitioning is None:
            return self.url
        return self._owners.get((table, partitioning.of(key)), self.url)

    def is_placed(self, table: str) -> bool:
        """True when it is known how the keys of a table are placed."""
        return table in self._partitionings

    def place(self, table: str, partitioning: Partitioning) -> None:
        """Note how the keys of a table are placed."""
        self._partitionings[table] = partitioning

    def unplace(self, table: str) -> None:
        """Forget how the keys of a table are placed: it may have been a former definition's."""
        self._partitionings.pop(table, None)

    def remember(self, table: str, key: bytes, owner: str) -> None:
        """Note the owner of the key's partition. Requires: the table is placed."""
        self._owners[table, self._partitionings[table].of(key)] = owner

    def forget(self, url: str) -> None:
        """Ask elsewhere for what a node owned: it does not answer."""
        self._owners = {where: owner for where, owner in self._owners.items() if owner != url}

    def put_beyond(self, url: str, now: float) -> None:
        """Believe for a while that an owner cannot be reached: its name may be one of another network."""
        self._beyond[url] = now + _BEYOND_S

    def is_beyond(self, url: str, now: float) -> bool:
        """True while it is believed that an owner cannot be reached."""
        return self._beyond.get(url, 0.0) > now

    def hope(self) -> None:
        """Try owners beyond reach again: nobody else could ask them either."""
        self._beyond.clear()
