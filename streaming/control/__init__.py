"""Control plane: slots and definitions become targets; what is live is announced."""
