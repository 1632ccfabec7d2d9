"""Compaction schedule: snapshots of the tables that ask for them, one job process for all that are due."""
