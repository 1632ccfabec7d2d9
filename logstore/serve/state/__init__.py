"""A reader process's state: tables, partitions, local snapshots, and requests that wait for a position."""
