"""Connections to Kafka: a cluster and its security, where settings come from, errors that a client is refused with."""
