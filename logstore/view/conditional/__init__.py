"""Conditional: what views of conditional tables hold beside their rows, and what the fold asks of it.

decisions       outcomes and ids that are remembered
expiries        ends of rows, in the order in which they come
state_before    what a view tells the fold of before a batch
"""
