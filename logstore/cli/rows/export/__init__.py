"""Export: rows of a table become rows of a file, the exact inverse of `load`; see `docs/files.md`."""
