"""Node: the supervisor of one machine's workers and readers, and its data directory."""
