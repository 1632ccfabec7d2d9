"""Reads: point, scan and multi-get over view and snapshot, at the consistency that was asked for."""
