"""API keys and tokens: where they are taken from, and where they are not sent."""

import io
from pathlib import Path

import pytest

from socket_server.cli import listen, main, secrets
from socket_server.cli.errors import CommandError
from socket_server.cli.http import may_use_proxy
from socket_server.cli.main import parser
from tests.unit.cli.conftest import Api


def test_a_key_is_taken_from_a_file_standard_input_the_environment_or_the_settings(
    api: Api, env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("from-file\n")
    assert main(["send", "1", "--server", api.url, "--key-file", str(tmp_path / "key")]) == 0
    env.setattr("sys.stdin", io.StringIO("from-stdin\n"))
    assert main(["send", "1", "--server", api.url, "--key-file", "-"]) == 0
    env.setenv("API_KEYS", "from-settings")
    assert main(["send", "1", "--server", api.url]) == 0
    env.setenv("SOCKET_SERVER_API_KEY", "from-environment")
    assert main(["send", "1", "--server", api.url]) == 0
    assert api.keys == ["Bearer from-file", "Bearer from-stdin", "Bearer from-settings", "Bearer from-environment"]


def test_a_token_is_taken_from_an_option_a_file_standard_input_or_the_environment(
    env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(*arguments: str) -> str:
        return secrets.token(parser().parse_args(["listen", "7", *arguments]))

    (tmp_path / "token").write_text("from-file\n")
    assert found() == ""
    env.setenv("SOCKET_SERVER_TOKEN", " from-environment ")
    assert found() == "from-environment"
    assert found("--token-file", str(tmp_path / "token")) == "from-file"
    env.setattr("sys.stdin", io.StringIO("from-stdin\n"))
    assert found("--token-file", "-") == "from-stdin"
    assert found("--token", "from-option") == "from-option"
    with pytest.raises(CommandError, match="the token has characters"):
        found("--token", "אסימון")


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe"])
def test_a_file_without_a_key_is_named(
    api: Api, tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    assert main(["send", "1", "--server", api.url, "--key-file", str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert api.received == []


@pytest.mark.parametrize("key", ["מפתח", "a\nb", "caf\xe9", "\ud800"])
def test_a_key_that_no_header_can_carry_is_refused(api: Api, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "1", "--server", api.url, "--key", key]) == 1
    assert "the API key has characters" in capsys.readouterr().err
    assert api.received == []


def test_credentials_of_the_home_directory_are_not_sent(api: Api, env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login admin password secret")
    env.setenv("NETRC", str(tmp_path / "netrc"))
    assert main(["send", "1", "--server", api.url]) == 0
    assert main(["send", "1", "--server", api.url, "--key", "mine"]) == 0
    assert api.keys == ["", "Bearer mine"]


@pytest.fixture
def proxy(api: Api, env: pytest.MonkeyPatch) -> Api:
    """The API as the proxy of the environment."""
    for name in ("NO_PROXY", "no_proxy"):
        env.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        env.setenv(name, api.url)
    return api


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9", "http://192.0.2.1.invalid"]
)
@pytest.mark.parametrize("arguments", [["send", "1", "--key", "k"], ["inbox", "1", "--key", "k"], ["listen", "1"]])
def test_no_proxy_gets_what_is_sent_over_http(
    proxy: Api, server: str, arguments: list[str], env: pytest.MonkeyPatch
) -> None:
    env.setattr("signal.signal", lambda *_: None)
    assert main([*arguments, "--server", server]) == 1
    assert proxy.received == []


def test_a_proxy_may_carry_tls() -> None:
    assert may_use_proxy("https://push.example.com/broadcast")
    assert may_use_proxy("wss://push.example.com")
    assert not may_use_proxy("http://push.example.com/broadcast")
    assert listen.http.may_use_proxy is may_use_proxy
