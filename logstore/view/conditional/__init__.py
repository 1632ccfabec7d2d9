"""Conditional: what views of conditional tables hold beside their rows.

expiries        ends of rows, in the order in which they come
"""
