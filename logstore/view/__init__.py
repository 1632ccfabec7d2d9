"""The door to LMDB."""
