"""Wide rows on the command line: `edit`, and cells as lines."""
