"""Disk: a partition on this node's disk, its view opened or begun, and its local snapshots."""
