"""`make bench`: every figure beside its raw ceiling, in one run."""
