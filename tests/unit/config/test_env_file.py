"""The file of settings: one message names the file and the line."""

import os
from pathlib import Path

import pytest

from socket_server.config import env_file
from socket_server.errors import ConfigError


def problem(path: Path | str) -> str:
    with pytest.raises(ConfigError) as caught:
        env_file.read(str(path))
    (only,) = caught.value.problems
    return only


def test_values_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_bytes("\ufeffA=1\n# comment\nexport B='two words'\nC=\nD=\u05d0\n".encode())
    assert env_file.read(str(path)) == {"A": "1", "B": "two words", "D": "\u05d0"}


def test_no_file_is_read_if_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert env_file.read(None) == {}
    assert env_file.read("") == {}
    Path(".env").write_text("A=1")
    assert env_file.read(None) == {"A": "1"}


def test_a_named_file_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    assert "missing-file" in problem(tmp_path / "missing-file")
    assert "ENV_FILE" in problem(tmp_path / "missing-file")


def test_a_file_that_is_not_utf_8_is_a_problem_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_bytes(b"A=1\nB=2\nC=caf\xe9\n")
    assert f"{path} is not UTF-8 in line 3" in problem(path)


@pytest.mark.parametrize("line", ["A B C=1", "= value", "'quoted", 'A="no end', "A='no end"])
def test_a_malformed_line_is_a_problem_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "settings"
    path.write_text(f"A=1\n{line}\n")
    assert "in line 2" in problem(path)


def test_what_cannot_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot be read" in problem(tmp_path)
    assert "cannot be read" in problem("no\0name")
    monkeypatch.chdir(tmp_path)
    os.mkdir(".env")
    with pytest.raises(ConfigError):
        env_file.read(None)
    os.rmdir(".env")
    os.symlink("nowhere", ".env")
    with pytest.raises(ConfigError):
        env_file.read(None)
