"""The accurate path: jobs that archive the log, fold it into snapshots, and prove that views hold the same.

cli/          the commands of `logstore batch`
jobs/         the driver's side of a job: its numbered steps
datasource/   `spark.read.format("logstore")`
engine/       what runs the tasks: Spark, or a pool of processes on this machine
tasks/        what executors do with one partition; no Spark in here
"""
