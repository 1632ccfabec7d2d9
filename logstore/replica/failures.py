"""Failures: problems of the read API as the errors that a client of it catches."""

from collections.abc import Iterator
from contextlib import contextmanager

from logstore.client.read.problem import error_of
from logstore.model.errors import LogStoreError
from logstore.serve.wire.problems import Problem


def error_of_problem(problem: Problem, table: str) -> LogStoreError:
    """The error that a client would have of this problem."""
    owner = problem.fields.get("owner")
    return error_of(problem.status, problem.document(), table, None if owner is None else str(owner))


@contextmanager
def typed(table: str) -> Iterator[None]:
    """Have problems raised as errors of the client."""
    try:
        yield
    except Problem as problem:
        raise error_of_problem(problem, table) from None
