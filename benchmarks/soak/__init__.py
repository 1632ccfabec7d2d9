"""Soak: two nodes over one Kafka under load, killed at random; no acknowledged write may be lost, no answer be wrong.

history     what was written, and the judgement on an answer
clients     writers and readers
faults      what is killed, stopped and started again
log_check   the log itself and an independent fold of it, at the end
"""
