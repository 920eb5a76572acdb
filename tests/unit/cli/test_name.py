"""The name of the command line in texts works as it is printed."""

import os
import sys
from pathlib import Path

import pytest

from socket_server.cli.name import command


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment with the command in tmp_path/.venv/bin, and nothing on the PATH."""
    bin_ = tmp_path / ".venv/bin"
    bin_.mkdir(parents=True)
    executable(bin_ / "socket-server")
    monkeypatch.setattr(sys, "executable", str(bin_ / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.chdir(tmp_path)
    return bin_


def executable(path: Path) -> None:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)


def test_off_the_path_it_is_the_path_from_here(environment: Path) -> None:
    assert command() == ".venv/bin/socket-server"


def test_in_an_active_environment_it_is_the_bare_name(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(environment))
    assert command() == "socket-server"


def test_another_installation_on_the_path_is_not_taken_for_this_one(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    executable(other / "socket-server")
    monkeypatch.setenv("PATH", str(other))
    assert command() == ".venv/bin/socket-server"


def test_from_another_directory_it_is_the_absolute_path(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert command() == str(environment / "socket-server")


def test_a_path_with_a_space_is_quoted(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename(tmp_path / ".venv", tmp_path / "my env")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env/bin/python"))
    assert command() == "'my env/bin/socket-server'"


def test_without_the_script_it_is_the_module(environment: Path) -> None:
    (environment / "socket-server").unlink()
    assert command() == f"{environment / 'python'} -m socket_server.cli"
