"""Changes: what one record does to a row.

edits       the cells that a mutation names, in the order in which it changes them
draft       a row while the edits of one record act on it
siblings    a row whose writers had not seen each other
"""
