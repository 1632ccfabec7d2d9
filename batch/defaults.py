"""Defaults of jobs that the commands' help shows, where they cost no import."""

MASTER = "local[*,4]"  # a task whose Python worker died is tried 4 times; "local[*]" would give up at once
LISTED = 100  # keys of one comparison that are named
LISTED_CELLS = 20  # and of each wide row, cells
NODES_S = 60.0  # without a step further, which an audit waits for the nodes' answers
AUTO, LOCAL, SPARK = ENGINES = ("auto", "local", "spark")
PROCESSES = 0  # of the local engine; 0: one a core
