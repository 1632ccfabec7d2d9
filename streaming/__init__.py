"""The fast path: workers that fold the log into views, under Faust's placement.

control/    which slots this worker follows, what it announces, when something stands still
adoption/   how a snapshot is fetched, proved equal and taken over, and how an empty view begins
lane/       the data plane: one thread from Kafka to LMDB
schedule/   snapshots made by themselves: when they are due, and how that went
digest/     the process that computes digests of pinned views
"""
