"""The clients: synchronous and asynchronous writing and reading, and administration.

    store, aio   the two clients
    read/        the conversation with the read API
    write/       what is on its way to the log
    transport/   connections to nodes
    session/     reads that see what the same session wrote and read
    typed/       tables whose values are objects of the program
    admin/       tables are made, changed and dropped
    memory/      the same client without Kafka, for tests

What reads does without librdkafka, and what writes without a connection to a node.
"""
