"""Conditional tables: the task that folds one partition of such a table over the snapshot before, and writes SSTables.

Its rows become a delta or a base as those of any partition (`sstables.PartitionTask`). Its outcomes and ids are written
whole, into a file of the new snapshot: those that ended are gone, and nobody has to look for one in older files.
"""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from batch.tasks.conditional_fold import ConditionalFold, FoldStart
from batch.tasks.sst_files import SstTarget, decisions_here, fetched, levels_opened
from batch.tasks.sst_output import MadeFile, SstOutput
from batch.tasks.sstables import PartitionTask
from logstore.model.errors import Corrupted
from logstore.model.folding.difference import LookUp
from logstore.model.folding.digest import Digest
from logstore.model.hard_rows.decisions import decisions_digest
from logstore.model.safe_path import below
from logstore.model.table import Table
from logstore.snapshot import decisions
from logstore.snapshot.manifest import DECISIONS, FileFacts
from logstore.snapshot.work import FoldOrder, FoldResult


def fold_conditional(order: FoldOrder, table: Table, where: SstTarget) -> FoldResult:
    """Fold one partition, and read what was written back. Raises Unsupported, Corrupted, StorageUnreachable."""
    with tempfile.TemporaryDirectory(prefix="logstore-fold-") as scratch, ExitStack() as opened:
        task = ConditionalTask(order, SstOutput(table, order.partition, where, Path(scratch)), opened)
        return task.read() or task.written()


def begun(
    order: FoldOrder, table: Table, where: SstTarget, rows: LookUp, scratch: Path, opened: ExitStack
) -> ConditionalFold:
    """A fold that goes on from the order's base, whose rows are these; `opened` closes it. Raises as `fetched`."""
    local = decisions_here(where, order.decisions, scratch)
    fold = ConditionalFold(table, order.partition, FoldStart(order.base, local, rows), scratch)
    opened.callback(fold.close)
    return fold


class ConditionalTask(PartitionTask):
    """A partition of a conditional table that is folded over the snapshot before."""

    fold: ConditionalFold

    def __init__(self, order: FoldOrder, output: SstOutput, opened: ExitStack) -> None:
        """`opened` closes what is open here."""
        self._opened = opened
        super().__init__(order, output)

    def result(self, total: Digest, files: list[FileFacts], *, linked: bool) -> FoldResult:
        """The result with these files of the rows, and that of the outcomes and ids."""
        made, decided = self._decided()
        base = self.order.base
        rows = super().result(total, files, linked=linked and made is None and not (base and base.decisions))
        facts = rows.facts._replace(
            digest=total.plus(Digest(decided.value)).hex, counter=self.fold.counter, decisions=decided.entries,
            rows_digest=total.hex if decided.entries else "", rules=self.fold.revision,
        )  # fmt: skip
        return rows._replace(facts=facts, files=[*files, *([] if made is None else [made])])

    def _begun(self) -> ConditionalFold:
        self._rows = self._opened.enter_context(levels_opened(self.lower))
        return begun(self.order, self.table, self.where, self._rows, self.scratch, self._opened)

    @contextmanager
    def _live_below(self) -> Iterator[Iterator[tuple[bytes, bytes]]]:
        yield self._rows.scan()  # it is open

    def _decided(self) -> tuple[FileFacts | None, Digest]:
        """The file of outcomes and ids, read back, and their digest; no file where there are none."""
        local, wanted = below(self.scratch, f"decisions-{secrets.token_hex(4)}.sst"), self.fold.decided_digest()
        facts = decisions.write(local, self.fold.decided(), compression=self.table.compression)
        if facts is None:
            return None, wanted
        file = self.output.uploaded([MadeFile(local, facts)], 0)[0]._replace(kind=DECISIONS)
        back = fetched(self.where, file, below(self.scratch, "back.sst"))
        with decisions.stored(back) as items:
            found = decisions_digest(items)
        if found != wanted:
            raise Corrupted(
                f"{file.path} does not read back as it was written: {found.entries:,} outcomes and ids instead of "
                f"{wanted.entries:,}, digest {found.hex} instead of {wanted.hex}; run the job again"
            )
        return file, wanted
