"""The store in memory: for tests of programs, with the checks, the fold and the answers of the real one."""
