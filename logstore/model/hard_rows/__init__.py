"""Hard rows: what mutations make of a row whose next state depends on the one before.

    parse       what a record of the log means, in a table of these rules
    row         a row's state: cells with their older versions, and row versions by locality group
    outcomes    what became of a mutation, and for how long that is remembered
    rules       what a table's definition says of all this
    changes     what one record does to a row: edits, drafts, siblings
    fold_rows   the fold of such rows, in the six steps by which every engine folds
    cells       the short cut for tables whose rows are one value
    stretch     a run of records of one partition: plain rows the short way, hard ones through `fold_rows`
    encoding    outcomes and ids as they lie in views
    decisions   the same as snapshots hold them, and their digest

Conditions, counters, ids, TTL and siblings are decided here and nowhere else, at a record's own offset, by what stands
below it in the log; so every replica decides the same.
"""
