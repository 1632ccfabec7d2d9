"""The accurate path: Spark folds the log again from the beginning."""
