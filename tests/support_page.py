"""Examples of a page of the documentation, run as they stand against a real store."""

import os
import re
import subprocess
import sys
from pathlib import Path

MARK = "===="


def examples(page: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a whole page."""
    found: list[tuple[str, str]] = []
    for line in "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL)).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def printed(page: str, facts: dict[str, str]) -> list[str]:
    """What each command of a page prints, one shell for all of them."""
    script = "".join(f"{command}\necho {MARK}\n" for command, _ in examples(page))
    environ = {
        "LOGSTORE_BOOTSTRAP": facts["bootstrap"],
        "LOGSTORE_URL": facts["http"],
        "LOGSTORE_DEADLINE_MS": "30000",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "exec 2>&1\n" + script.replace("http://127.0.0.1:8480", facts["http"])],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.replace("\r", "").split(f"{MARK}\n")


def matches(told: str, out: str) -> bool:
    """True when `out` is what the page tells, whatever stands for its dots."""
    return re.fullmatch(".*".join(map(re.escape, told.split("..."))), out) is not None
