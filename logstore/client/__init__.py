"""The clients: synchronous and asynchronous writing and reading.

store, aio   the two clients
read/        the conversation with the read API
write/       what is on its way to the log
transport/   connections to nodes
memory/      the same client without Kafka, for tests
"""
