"""History of a key: its records as log and archive hold them, and what each of them means by itself."""
