"""Found store: the store in Kafka that a node, or a process of its own, belongs to, as soon as Kafka answers.

The store's own topics are made where there are none, and are still those that the views of the data directory belong
to. Where something is on the disk that can be served meanwhile, nobody waits for Kafka.
"""

import time
from collections.abc import Callable

from logstore.log.kafka.clients import cluster_id
from logstore.log.membership.permissions import check_worker, group_of
from logstore.log.tables.registry import Registry
from logstore.model.errors import AccessDenied, NotYet
from logstore.node.node_dir import NodeDir
from logstore.settings import Settings
from logstore.view.paths import default_storage

PROBE_S = 3.0  # asking whether Kafka is there; children are looked after in between
PATIENCE_S = 10.0  # between two words about what a start still waits for


class FoundStore:
    """The store on `bootstrap`. `slots` is None until Kafka has answered."""

    def __init__(self, bootstrap: str, settings: Settings, node_dir: NodeDir, loud: Callable[[str], None]) -> None:
        """`loud` gets what a person should see."""
        self.bootstrap = bootstrap
        self.slots: int | None = None
        self._settings, self._dir, self._loud = settings, node_dir, loud
        self._refusal = ""  # of Kafka, as it was said last

    def wait(self, beat: Callable[[], None]) -> None:
        """Return when it is found, or when there is something to serve until it is; `beat` is called meanwhile.

        Raises EpochChanged, LogTruncated; AccessDenied where there is nothing to serve.
        """
        if not self.look() and self._dir.has_served():
            self._loud(
                f"Kafka at {self.bootstrap} does not answer: what is here is served as it was, and goes on by itself"
            )
            return
        said_s = float("-inf")
        while self.slots is None:  # nothing is here that could be served meanwhile
            beat()
            if time.monotonic() - said_s > PATIENCE_S and cluster_id(self.bootstrap, PROBE_S) is None:
                said_s = time.monotonic()
                self._loud(
                    f"Kafka does not answer at {self.bootstrap}; is the broker running, and is that the right "
                    "--bootstrap? It is asked until it does"
                )
            self.look()

    def look(self) -> bool:
        """False while Kafka does not answer, or not yet as it should. Raises EpochChanged, LogTruncated."""
        if self.slots is not None:
            return True
        try:
            if cluster_id(self.bootstrap, PROBE_S) is None:
                return False
        except AccessDenied as error:
            return self._refused(error)
        registry = Registry(self.bootstrap)
        try:
            slots = registry.ensure_store(self._settings.slots)
            check_worker(self.bootstrap, group_of(self._settings.group))
            self._dir.check_store(registry)
            self._settle_storage(registry)
        except AccessDenied as error:
            return self._refused(error)
        except NotYet as error:  # a broker that has just started leads nothing yet
            self._loud(f"{error}; it is tried again")
            return False
        self.slots = slots
        return True

    def _refused(self, error: AccessDenied) -> bool:
        """False where there is something to serve meanwhile. Raises `error` where there is nothing."""
        if not self._dir.has_served():
            raise error
        if self._refusal != str(error):
            self._refusal = str(error)
            self._loud(f"{error}; what is here is served as it was, and it is tried again")
        return False

    def _settle_storage(self, registry: Registry) -> None:
        """Record the location of archive and snapshots: the store knows it, not a node.

        The first node records it, a flag that says otherwise moves it.
        """
        definitions, wanted = registry.read(), self._settings.storage
        recorded = definitions.storage
        if recorded is None and wanted is None and definitions.storage_problem is not None:
            self._loud(definitions.storage_problem)
        elif recorded is None:
            registry.write_storage(wanted or default_storage(self._dir.path))
        elif wanted is not None and wanted != recorded:
            self._loud(
                f"the storage of this store moves from {recorded} to {wanted}: what lies there has to be copied, or is "
                "not found"
            )
            registry.write_storage(wanted)
