"""The door to Kafka: topics of tables, control records. Rooms: membership > tables > read | write > kafka > connect."""
