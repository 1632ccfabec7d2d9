"""The door to Kafka (`kafka`), topics of tables, control records. Rooms: membership > tables > read | write."""
