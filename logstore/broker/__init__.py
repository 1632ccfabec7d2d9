"""Embedded broker: a real Kafka of our own for development, from its jars to its restarts."""
