"""Views read by several threads of one process, in a program that may fork: one opening of each, and the gate to them.

LMDB allows one opening of an environment a process, none across a fork, and no change of its map while it is read.
"""
