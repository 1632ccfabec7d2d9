"""Conditional writes: the log decides them at their own offset, and their writers are told the outcome.

record          what goes to the log: operation, condition, id
outcome         what became of one
delivery        the way from one to the other: retried with the same id, within the delivery deadline
writes          put_if, delete_if, cas, incr, append and edit, of every blocking client; async_writes: of the others
"""
