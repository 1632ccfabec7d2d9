"""Change feed: what became of rows, from a snapshot on or from a token, to many subscribers of one tail."""
