"""`socket-server inbox`."""

import pytest

from socket_server.cli import main
from socket_server.cli.http import user_path
from tests.unit.cli.conftest import Api


@pytest.mark.parametrize(
    ("user", "path"),
    [(".", "/users/%2E/x"), ("..", "/users/%2E%2E/x"), ("a/../b", "/users/a%2F..%2Fb/x"), ("...", "/users/.../x")],
)
def test_a_user_id_of_dots_is_not_a_directory(user: str, path: str) -> None:
    assert user_path(user, "x") == path


def test_a_user_id_that_is_not_utf_8_is_refused(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inbox", "\udcff", "--server", api.url]) == 1
    assert "not valid UTF-8" in capsys.readouterr().err
    assert api.received == []


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b"null", b"{}", b'{"notifications": []}', b"\xff"])
def test_an_answer_of_another_server_is_one_message(api: Api, answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    api.answer = answer
    assert main(["inbox", "7", "--server", api.url]) == 1
    assert "is not a socket-server's" in capsys.readouterr().err


def test_an_empty_page_ends_the_listing(api: Api) -> None:
    api.answer = b'{"notifications": [], "total": 5}'
    assert main(["inbox", "7", "--server", api.url]) == 0
    assert len(api.received) == 1
