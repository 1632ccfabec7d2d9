"""Writing to the log: the producer, its connection, what its errors say, and librdkafka's own partitioner."""
