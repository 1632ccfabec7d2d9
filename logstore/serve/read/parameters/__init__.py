"""Parameters of reads: keys, lists of keys, cursors and ranges, checked and decoded."""
