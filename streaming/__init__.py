"""The fast path: Faust places the slots, a lane of our own folds the log into LMDB."""
