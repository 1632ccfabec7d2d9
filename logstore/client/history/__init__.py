"""History: every mutation of one key that log and archive still hold, and what became of it."""
