"""Feed: what the workers and the readers of a node tell each other. Drawn in `docs/feed_format.md`.

A worker publishes a dictionary (`server`), and a reader takes its changes from a socket (`stream`); the latest record
of a key wins. A key (`key`) names the class of its record (`TablesKey` that of `TablesRecord`), which stands beside it,
so that both sides speak of the same fields. What goes the other way is an `acknowledgement`.

    key                                    its record, in words                                   file
    TablesKey()                            definitions of the tables, and where the storage lies  table_records
    ScheduleKey(table, epoch)              how scheduled compactions went; of who leads           table_records
    NodesKey()                             what every live worker of every node announced         node_records
    LogKey()                               whether Kafka answers                                  log_records
    EndsKey()                              where the logs ended when Kafka was asked              log_records
    ClockKey()                             the newest time of a broker, and when it was asked     log_records
    EndKey(epoch, partition)               where one ended when a reader wanted to know           log_records
    BarrierKey(epoch, partition)           the newest barrier that a reader wanted                log_records
    ViewKey(table, epoch, partition)       a partition served here, the snapshots under it        view_records
    AdoptionKey(table, epoch, partition)   how far the adoption of a snapshot has come            adoption_records
    AppliedKey(epoch, partition)           where a view and its log stand                         position_records
    TimesKey(epoch, partition)             where a partition stood in log time before ticks       position_records
    MarkKey()                              sent back once all published before is taken in        acknowledgement

Versions stand beside each other while a node is upgraded, so both sides read leniently (`fields`, `changes`): a key and
a field of a later version are passed over; a field that is missing or null has its default, and defaults are such that
nothing is answered from them. A field of another kind than told here is an `UnreadableRecord`.
"""
