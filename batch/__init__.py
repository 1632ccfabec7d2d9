"""The accurate path: Spark jobs that archive the log, fold it into snapshots, and prove that views hold the same.

cli/          the commands of `logstore batch`
jobs/         the driver's side of a job: its numbered steps
datasource/   `spark.read.format("logstore")`
tasks/        what executors do with one partition; no Spark in here
"""
