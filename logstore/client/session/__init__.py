"""Sessions: reads that see what the same session wrote and read before, without tokens in the program's hands."""
