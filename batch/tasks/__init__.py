"""Tasks: plain functions over one partition, run by executors; no Spark in here."""
