"""Bodies of writes over HTTP, parsed and checked before anything is written.

row_patch       one mutation: incr, append, edit and their conditions; the body of PATCH
cell_edits      the edits of a wide row in it
row_batch       the body of rows:write, as a whole
"""
