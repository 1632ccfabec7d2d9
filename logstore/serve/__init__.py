"""Readers: the HTTP endpoint over views and snapshots. Nothing here writes; nothing here talks to Kafka.

process.py        one reader: socket, feed clients, server, end
protocol.py       the connection: limits, time, the way in
fast_path.py      whole simple GETs of rows, answered in the protocol
app.py            everything else: routes and errors
status_pages.py   /v1/tables, /v1/partitions, /v1/cluster, health; snapshot_page.py and metrics.py beside it
store_status.py   /v1/status: the whole store, asked of every node
read/             point, scan and multi-get over view and snapshot, at the consistency that was asked for
state/            tables, partitions and local snapshots known here, and who waits for a position
wire/             requests, responses, media types, problem documents

`python -m logstore.serve` runs one; several share a port.
"""
