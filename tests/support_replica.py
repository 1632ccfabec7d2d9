"""A node of the tests in a process of its own: a view is open in its writer's process once, and here for a replica."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from support_serve import Node
from support_view import copy, truncate

from logstore import Replica
from logstore.view.feed.node_records import NodeRecord
from logstore.view.feed.view_records import ViewKey


class NodeProcess:
    """A `Node`: its methods are called there, one after the other; `kill` ends it as -9 does."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "node_id").write_text("node-a")
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of this process would bring its replicas along
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.data_dir, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self._answer()

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._pipe.send((name, args, kwargs))
            return self._answer()

        return call

    def _answer(self) -> Any:
        assert self._pipe.poll(180), "the node does not answer"
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.join(90)
        self._pipe.close()


def _serve(data_dir: Path, pipe: Connection) -> None:
    node = _Node(data_dir)
    pipe.send(None)
    while True:
        try:
            name, args, kwargs = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(node, name)(*args, **kwargs))
        except Exception as error:  # whoever called has it
            pipe.send(error)


class _Node(Node):
    """With answers that go through a pipe."""

    def set_slots(self, slots: list[int]) -> None:
        self.slots = slots

    def set_others(self, others: list[NodeRecord]) -> None:
        self.others = others

    def create(self, *args: Any, **kwargs: Any) -> None:
        super().create(*args, **kwargs)

    def view_path(self, name: str, partition: int) -> Path:
        return self.views[self.tables[name].epoch, partition].path

    def damage(self, name: str, partition: int) -> None:
        """Publish a view that was cut short, in place of the one that is there."""
        table = self.tables[name]
        where = table.epoch, partition
        view = self.views[where]
        path = view.path.with_name("99")
        copy(view.path, path)
        truncate(path, 8_192)
        record = self.published[ViewKey(name, *where)]
        self.publish(ViewKey(name, *where), record._replace(path=str(path)))

    def demands(self) -> Any:
        return [] if self.feed is None else self.feed.demands()

    def next_offset(self, name: str, partition: int) -> int:
        return self.views[self.tables[name].epoch, partition].next_offset


@contextmanager
def replicated(data_dir: Path) -> Iterator[tuple[Any, Replica]]:
    """A node, and a replica of it here."""
    node = NodeProcess(data_dir)
    try:
        with Replica(data_dir) as replica:
            yield node, replica
    finally:
        node.kill()
