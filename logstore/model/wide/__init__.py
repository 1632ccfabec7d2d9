"""Wide rows as they are written and read: cells, which of them a read asks for, and edits of them."""
