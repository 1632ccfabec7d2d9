"""Wide rows of a client: edits of their cells, and rows as they are read."""
