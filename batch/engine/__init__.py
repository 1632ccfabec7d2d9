"""Engines: what runs the tasks of a job, one plain function over the partitions of a table.

protocol      what every engine does, and how often a task is tried
choice        which engine a job gets, by its size
spark         Spark places and retries tasks, on one machine or on many
local         a pool of processes on this machine, without Java
pool_child    one process of that pool
"""
