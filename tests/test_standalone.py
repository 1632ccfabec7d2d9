"""The whole corridor on a standalone Spark cluster: a master and two workers, each a process of its own."""

import pytest
from support_batch import commands
from support_standalone import bare_python, library, standalone

from logstore import Store

TABLE = "standalone"


@pytest.mark.long
def test_every_job_runs_on_a_cluster_and_a_disk_that_executors_do_not_see_is_refused(dev, tmp_path, monkeypatch):
    """Executors have the library from a zip; a path of `/proc/self` is another folder for each process."""
    monkeypatch.chdir(tmp_path)  # where the driver sees that folder
    monkeypatch.setenv("PYSPARK_PYTHON", str(bare_python(tmp_path)))
    dev("table", "create", TABLE, "--partitions", "3")
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        store.put_many(TABLE, [(b"key-%04d" % n, b"%d" % n) for n in range(1_000)])
    with standalone(tmp_path / "spark") as url, commands(dev.data, "one", "spark") as run:
        cluster = ("--master", url, "--conf", f"spark.submit.pyFiles={library(tmp_path)}")
        cluster += ("--conf", "spark.executor.memory=512m")
        unseen = run("archive", TABLE, *cluster, "--storage", "file:///proc/self/cwd/unseen", status=2)
        assert unseen == ""
        assert run.json("archive", TABLE, *cluster)["records"] == 1_000
        made = run.json("compact", TABLE, *cluster, "--wait", "120")
        assert made["entries"] == 1_000
        found = run.json("audit", TABLE, *cluster)
        assert found["verdict"] == "agree"
        assert {one["name"].partition(" ")[0] for p in found["partitions"] for one in p["compared"]} == {
            "snapshot",
            "view",
        }
        restored = run.json("restore", TABLE, *cluster, "--at", made["cut"], "--as", f"{TABLE}_then")
        assert restored["entries"] == 1_000
        assert sorted(restored["digests"]) == sorted(made["digests"])
    assert not list((dev.data / "snapshots").glob("**/_seen/*"))
