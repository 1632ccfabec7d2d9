"""Replica: the embedded reader, which reads a node's views in the caller's own process.

replica.py    what a program uses; view.py: reading without copying
follower.py   the thread that follows the node, one a data directory and process; followers.py: who shares it
published.py  what that thread publishes for the threads that read
reads.py      rows of a partition, of many keys and of ranges, at a level; failures.py: errors as a client catches them
"""
