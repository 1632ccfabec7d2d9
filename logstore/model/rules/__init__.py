"""Rules: revisions of what a definition says of a fold, and the records by which they follow each other."""
