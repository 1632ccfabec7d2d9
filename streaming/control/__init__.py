"""Control plane: slots and definitions become targets; what is live is announced to nodes and readers, what is due is compacted."""
