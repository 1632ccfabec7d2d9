"""Demands: points of logs that readers wait for, asked of Kafka at once and for all of them together."""
