"""Readers: the HTTP endpoint over the views. Nothing here writes; nothing here talks to Kafka.

    process    one reader: socket, feeds, server, end        protocol   the connection: limits, time, the way in
    feeds      follows the node's workers                     fast       whole simple GETs of rows, answered at once
    voice      what one worker says                           app        everything else: routes and errors
    catalog    tables, nodes and partitions known here        request, level, rowkey, query, cursor, media    what is asked
    served     one partition, its view and base               rows, scan, multiget, pages, metrics            what is answered
    bases      the snapshots under the views                  layers     view over snapshot, read as one
    past       LS-As-Of, and what of it can be proved         snapshots  how partitions stand with theirs
    waiters    requests that wait for a token                 listing, pagepart, gather                       lists, over nodes too
    reach      the consistency levels                         problems, answer                                errors, answers

`python -m logstore.serve` runs one; several share a port.
"""
