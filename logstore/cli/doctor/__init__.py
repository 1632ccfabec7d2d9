"""`logstore doctor`: what is wrong with this machine, Kafka, the tables and the node, and what to type."""
