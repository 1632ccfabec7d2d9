"""Writes over HTTP: a thin gateway to the log for those without a client of Kafka; off unless it is asked for.

write_terms     what the headers of a write say: condition, id, end, deadline
write_level     what has a write when it is answered
row_record      what goes to the log, checked against the table
bodies          what a body says: the change of a row, edits, many rows
writes_in_flight  bounds of what is on its way
log_writer      the producer of a reader: records in, positions out
write_answers   a write's fate as HTTP tells it
row_write, batch_write  the pages
"""
