"""Snapshots: SSTables of every partition up to a cut, with a manifest; the only door to RocksDB."""
