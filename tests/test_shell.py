"""`logstore shell`: commands at a prompt and through a pipe."""

import os
import pty
import select
import subprocess
import sys
import termios
import time

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from logstore import Store
from logstore.cli.main import cli
from logstore.cli.shell import command
from logstore.cli.shell.completer import CommandCompleter

SHELL = [sys.executable, "-P", "-m", "logstore.cli.main", "shell"]


def piped(lines, *argv, env=None):
    return subprocess.run(
        [*SHELL, *argv], input=lines, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | (env or {}),
    )  # fmt: skip


def test_commands_through_a_pipe_work_on_the_store_that_the_options_name(dev, users):
    lines = f'# one row\n\nput {users} shell "two words"\nput {users}\nput {users} shell "not any more"\n'
    done = piped(lines, "--bootstrap", dev.facts["bootstrap"], "--url", dev.facts["http"])
    assert done.returncode == 2
    assert done.stdout.count("offset") == 1, done.stdout + done.stderr
    assert done.stderr.startswith("logstore: Missing argument"), done.stderr
    with Store(dev.facts["bootstrap"], dev.facts["http"]) as store:
        row = store.get(users, "shell", consistency="latest", deadline_ms=20_000)
    assert row.value == b"two words"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('put "x', "No closing quotation: in 'put \"x'"),
        ("shell", "this is the shell"),
        ("nosuch", "there is no command 'nosuch'"),
        ("get", "Missing argument"),
    ],
)
def test_a_wrong_line_is_said_and_ends_a_pipe(line, says):
    done = piped(f"{line}\nversion\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def typed(text, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        keys.send_text(text)
        return list(command._typed(cli))


@pytest.mark.parametrize("end", ["\x04", "exit\r", " quit \r"])
def test_what_is_typed_is_run_and_remembered_for_its_user_alone(tmp_path, monkeypatch, end):
    assert typed(f"get users ada\rput users ada\x03version\r{end}", tmp_path, monkeypatch) == [
        "get users ada", "version",
    ]  # fmt: skip
    history = tmp_path / "logstore" / "shell_history"
    assert "+get users ada" in history.read_text()
    assert history.stat().st_mode & 0o777 == 0o600


def test_a_terminal_gets_a_prompt_and_the_next_command_after_one_that_failed(tmp_path):
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 100))
    env = os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
    with subprocess.Popen(SHELL, stdin=its, stdout=its, stderr=its, env=env, close_fds=True) as process:
        os.close(its)
        said = b""

        def until(wanted):
            nonlocal said
            deadline = time.monotonic() + 60
            while wanted not in said:
                assert select.select([ours], [], [], deadline - time.monotonic())[0], said
                said += os.read(ours, 4_096)
                if b"\x1b[6n" in said:  # it asks where the cursor is
                    said = said.replace(b"\x1b[6n", b"")
                    os.write(ours, b"\x1b[1;1R")

        until(b"logstore>")
        os.write(ours, b"get\r")
        until(b"Missing argument")
        os.write(ours, b"version\r")
        until(b"confluent-kafka")
        os.write(ours, b"exit\r")
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
            os.close(ours)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sc", {"scan"}),
        ("table cr", {"create"}),
        ("scan --pre", {"--prefix"}),
        ('put users "a', set()),
        ("table create x --comp", {"--compression"}),
        ("table alter x --compression l", {"lz4"}),
    ],
)
def test_commands_options_and_choices_are_completed(text, found):
    completions = CommandCompleter(cli).get_completions(Document(text), CompleteEvent())
    assert {one.text for one in completions} == found


def test_the_names_of_tables_are_completed(dev, users, monkeypatch):
    monkeypatch.setenv("LOGSTORE_URL", dev.facts["http"])
    completions = CommandCompleter(cli).get_completions(Document("get use"), CompleteEvent())
    assert users in {one.text for one in completions}
