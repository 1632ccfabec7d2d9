"""What the README tells a newcomer to do works as it stands."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_of_the_quickstart_runs(dev, users, capsys, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "users" in code
    code = code.replace("users", users)
    for name, value in {"DATA_DIR": str(dev.data), "BOOTSTRAP": "", "URL": ""}.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", value)  # as for a newcomer: one store runs here, and nothing is set
    names: dict[str, object] = {}
    exec(code, names)
    assert names["row"].value == b"Ada Lovelace"
    assert "b'ada' b'Ada Lovelace'" in capsys.readouterr().out


def test_the_commands_of_the_quickstart_run(dev, users):
    commands = [
        shlex.split(line.strip())[1:] for line in README.splitlines() if re.match(r"    logstore (put|get) ", line)
    ]
    assert len(commands) == 2
    assert [dev(*[users if word == "users" else word for word in command]).returncode for command in commands] == [0, 0]


def test_every_page_it_points_to_is_there():
    linked = re.findall(r"\]\(([\w./]+)\)", README)
    assert len(linked) >= 4
    assert [link for link in linked if not (ROOT / link).exists()] == []


def test_every_folder_it_names_is_there():
    named = re.findall(r"^    ((?:logstore/\w+|streaming|batch)) {2,}", README, re.MULTILINE)
    rooms = [f"logstore/{path.parent.name}" for path in (ROOT / "logstore").glob("*/__init__.py")]
    assert set(named) == {*rooms, "streaming", "batch"}
    assert [name for name in named if not (ROOT / name).is_dir()] == []
