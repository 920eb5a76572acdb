"""The arguments of the command line, and its exit statuses."""

import pytest

from socket_server import __version__
from socket_server.cli import main
from socket_server.cli.main import parser


def test_send_takes_several_users() -> None:
    assert parser().parse_args(["send", "1", "2", "--title", "T"]).users == ["1", "2"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["send"],
        ["token"],
        ["listen"],
        ["token", "1", "--ttl", "soon"],
        ["send", "1", "--priority", "urgent"],
        ["send", "1", "--ttl", "nan"],
        ["send", "1", "--ttl", "inf"],
        ["send", "1", "--ttl", "1e999"],
        ["send", "1", "--ttl", "soon"],
        ["run", "x"],
    ],
)
def test_wrong_arguments_are_explained_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: socket-server" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("60.0", 60), ("0", 0), ("1.5", 1.5)])
def test_a_whole_number_of_seconds_is_an_int(text: str, seconds: float) -> None:
    found = parser().parse_args(["send", "1", "--ttl", text]).ttl
    assert (found, type(found)) == (seconds, type(seconds))


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == f"socket-server {__version__}"


def test_bad_settings_are_status_2(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("PORT", "x")
    assert main(["token", "123"]) == 2
    assert "PORT" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["send", "inbox", "listen"])
def test_the_help_says_that_a_secret_on_the_command_line_is_visible(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "every user of this machine can see it in the process list" in shown
    assert "-file FILE" in shown
    assert "SOCKET_SERVER_" in shown
