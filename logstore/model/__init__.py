"""The pure core: mutation, position, table, entry, fold, errors. No I/O, no clock, no randomness."""
