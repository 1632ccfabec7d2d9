"""The door to Kafka: clients, their errors, topics, leaders, offsets and records, with types for what comes back."""
