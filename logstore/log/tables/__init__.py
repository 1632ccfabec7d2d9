"""Tables in the log: the registry of their definitions, DDL, names of their topics, forks."""
