"""Forked processes of the tests are like those that are started the long way."""

import signal
import subprocess
from pathlib import Path

import pytest
from support_forked import Forked, Preloaded, start

MODULE = "logstore.serve"


@pytest.fixture
def ended(tmp_path):
    """Exit status and output of a reader with these arguments, forked or started the long way."""

    def ended(*arguments):
        with (tmp_path / "said").open("wb") as said:
            process = start(MODULE, [*arguments], output=said.fileno(), errors=said.fileno())
        return type(process), process.wait(60), (tmp_path / "said").read_text()

    return ended


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--nonsense", 2), ("--host=nowhere.invalid", 1)])
def test_it_ends_with_the_same_status_and_words(ended, monkeypatch, tmp_path, argument, status):
    here = "--data-dir", str(tmp_path), argument
    kind, *forked = ended(*here)
    monkeypatch.setenv("PYTHONPATH", "/a/folder/of/the/test")
    long_way, *found = ended(*here)
    assert (kind, long_way) == (Forked, subprocess.Popen)
    assert found[0] == status
    assert forked == found


def test_it_has_the_environment_of_its_start(ended, monkeypatch, tmp_path):
    monkeypatch.setenv("LOGSTORE_LOG_LEVEL", "loudest")
    _, status, said = ended("--data-dir", str(tmp_path))
    assert status == 1
    assert "loudest" in said


def test_a_signal_that_ends_it_is_its_status_and_there_is_a_deadline(tmp_path):
    process = start(MODULE, ["--data-dir", str(tmp_path), "--port", "0"])
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait(60) == process.poll() == -signal.SIGKILL
    process.kill()  # nobody


def test_it_ends_with_what_forked_it(tmp_path):
    one = Preloaded(MODULE)
    process = Forked(MODULE, ["--data-dir", str(tmp_path), "--port", "0"], of=one)
    one.close()
    assert process.wait(60) == -signal.SIGKILL
    assert not Path(f"/proc/{process.pid}").exists()
