"""Topics of the tables, as Kafka tells of them: which they are, and where their logs end."""
