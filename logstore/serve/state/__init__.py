"""State: what a reader process knows: tables, partitions, local snapshots, and who waits for a position."""
