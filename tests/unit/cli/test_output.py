"""Output on any terminal."""

import io
import json

import pytest

from socket_server.cli import main
from socket_server.cli.output import print_json
from tests.unit.cli.conftest import Api


def terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    return written


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1255"])
@pytest.mark.parametrize("value", ["שלום", "😀", "\ud83d", "plain", "\x1b[31m"])
def test_any_notification_is_printed_as_json_on_any_terminal(
    encoding: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = terminal(encoding, monkeypatch)
    print_json({"title": value})
    assert json.loads(written.getvalue().decode(encoding)) == {"title": value}
    assert b"\x1b" not in written.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_answer_with_other_characters_is_printed_on_any_terminal(
    api: Api, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.answer = '{"error": "שלום… 😀"}'.encode()
    written = terminal(encoding, monkeypatch)
    assert main(["send", "1", "--server", api.url]) == 0
    assert b"error" in written.getvalue()
    written = terminal(encoding, monkeypatch)
    api.answer = '{"notifications": [{"id": "1", "notification": {"title": "שלום"}}], "total": 1}'.encode()
    assert main(["inbox", "1", "--server", api.url]) == 0
    assert json.loads(written.getvalue()) == {"id": "1", "notification": {"title": "שלום"}}


def test_the_doctor_speaks_on_any_terminal(env: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch) -> None:
    env.setenv("APP_ENV", "production")
    env.setenv("NODE_NAME", "צומת")
    written = terminal("ascii", monkeypatch)
    assert main(["doctor"]) == 1
    assert b"NODE_NAME" in written.getvalue()
    assert b"API_KEYS" in written.getvalue()
