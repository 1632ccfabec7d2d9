"""Typed tables: values are objects of the program at the edge, and bytes everywhere else."""
