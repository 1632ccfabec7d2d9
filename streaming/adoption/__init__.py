"""Adoption: snapshots are fetched, proved equal to the view, and become its base."""
