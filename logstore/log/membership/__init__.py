"""Membership: announced workers, and the small topics that tell which of them there are, and which tables."""
