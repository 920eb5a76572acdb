"""The command line: what its options mean, and what it says if it fails."""

import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from socket_server import __version__
from socket_server.cli import doctor, main
from socket_server.cli.errors import CommandError
from socket_server.cli.http import user_path
from socket_server.cli.main import parser
from socket_server.cli.output import print_json
from socket_server.cli.send import notification
from tests.servers import ROOT, free_port
from tests.unit.keypairs import public_pem

SECRET = "a-secret-of-enough-bytes-for-every-hash-0123456789"


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A secret, no API key, no .env file, and no server at PORT."""
    for name in ("APP_ENV", "HOST", "API_KEYS", "JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ALGORITHMS", "JWT_USER_CLAIM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ENV_FILE": "", "JWT_SECRET": SECRET, "PORT": "9", "NO_PROXY": "127.0.0.1,localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def options(*words: str) -> Any:
    return parser().parse_args(["send", "123", *words])


# The notification of `send`


def test_a_plain_title_and_body_are_strings() -> None:
    assert notification(options("--title", "T", "--body", "B")) == {"title": "T", "body": "B"}


def test_languages_are_an_object() -> None:
    built = notification(options("--title-he", "כותרת", "--title-en", "Title", "--body-he", "תוכן"))
    assert built == {"title": {"he": "כותרת", "en": "Title"}, "body": {"he": "תוכן"}}


def test_everything_else_goes_to_its_place() -> None:
    words = [
        "--priority",
        "high",
        "--url",
        "/lev",
        "--icon",
        "https://x/i.png",
        "--action-key",
        "updateTask",
        "--data",
        '{"n": 1}',
    ]
    assert notification(options(*words)) == {
        "metadata": {"priority": "high", "url": "/lev", "icon": "https://x/i.png"},
        "actionKey": "updateTask",
        "data": {"n": 1},
    }


def test_what_is_not_given_is_not_sent() -> None:
    assert notification(options()) == {}


@pytest.mark.parametrize(("data", "value"), [("null", None), ("0", 0), ("[]", []), ('""', "")])
def test_empty_things_that_are_given_are_sent(data: str, value: Any) -> None:
    assert notification(options("--title", "", "--data", data)) == {"title": "", "data": value}


@pytest.mark.parametrize("words", [["--title", "T", "--title-he", "כ"], ["--body", "", "--body-en", "B"]])
def test_one_text_beside_languages_is_refused(words: list[str]) -> None:
    with pytest.raises(CommandError, match=r"--title|--body"):
        notification(options(*words))


@pytest.mark.parametrize("data", ["", "{", "nonsense", "{'a': 1}"])
def test_data_that_is_no_json_is_refused(data: str) -> None:
    with pytest.raises(CommandError, match="--data is not JSON"):
        notification(options("--data", data))


# Words


def test_several_users_may_be_named() -> None:
    assert parser().parse_args(["send", "1", "2", "--title", "T"]).users == ["1", "2"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nonsense"],
        ["send"],
        ["token"],
        ["listen"],
        ["token", "1", "--ttl", "soon"],
        ["send", "1", "--priority", "urgent"],
        ["run", "x"],
    ],
)
def test_words_that_mean_nothing_are_explained_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2
    assert "usage: socket-server" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.strip() == f"socket-server {__version__}"


# token


def test_a_token_is_minted_with_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "123", "--ttl", "60"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), SECRET, algorithms=["HS256"])
    assert claims["id"] == "123"
    assert claims["exp"] - claims["iat"] == 60


def test_while_secrets_are_rotated_the_newest_signs(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("JWT_SECRET", f"{SECRET}-new,{SECRET}-old")
    env.setenv("JWT_USER_CLAIM", "uid")
    assert main(["token", "123"]) == 0
    claims = jwt.decode(capsys.readouterr().out.strip(), f"{SECRET}-new", algorithms=["HS256"])
    assert claims["uid"] == "123"


def test_without_any_secret_or_server_it_says_what_to_do(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("JWT_SECRET", "")
    assert main(["token", "123"]) == 1
    message = capsys.readouterr().err
    assert "JWT_SECRET is not set" in message
    assert "Traceback" not in message


def test_with_a_public_key_alone_no_token_can_be_minted(
    env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("JWT_SECRET", "")
    env.setenv("JWT_PUBLIC_KEY", public_pem("P-256"))
    assert main(["token", "123"]) == 1
    assert "public key" in capsys.readouterr().err


def test_bad_settings_are_status_2(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("PORT", "x")
    assert main(["token", "123"]) == 2
    assert "PORT" in capsys.readouterr().err


# send


class _Api(http.server.BaseHTTPRequestHandler):
    """Notes what is posted; refuses the key "wrong"."""

    received: list[tuple[str, str, Any]]
    headers_received: dict[str, str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers.get("Authorization", "")
        self.received.append((self.path, key, body))
        type(self).headers_received = dict(self.headers)
        answer = b'{"success":true}'
        self.send_response(401 if key == "Bearer wrong" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api() -> Iterator[tuple[str, list[tuple[str, str, Any]]]]:
    """A real HTTP server on this machine: its URL and what it was sent."""
    _Api.received = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", _Api.received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_send_posts_a_broadcast_and_prints_the_answer(
    api: tuple[str, list[Any]], env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, received = api
    env.setenv("API_KEYS", "first,second")
    assert main(["send", "1", "2", "--title", "T", "--server", url + "/"]) == 0
    assert received == [("/broadcast", "Bearer first", {"userIds": ["1", "2"], "notification": {"title": "T"}})]
    assert capsys.readouterr().out.strip() == '{"success":true}'


def test_without_a_key_none_is_sent(api: tuple[str, list[Any]]) -> None:
    url, received = api
    assert main(["send", "1", "--server", url]) == 0
    assert received[0][1] == ""


def test_a_refusal_is_status_1(api: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "1", "--server", api[0], "--key", "wrong"]) == 1
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "server", [[], ["--server", "http://127.0.0.1:9"], ["--server", "nonsense"], ["--server", "http://[::1"]]
)
def test_where_no_server_answers_it_says_so(server: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "1", *server]) == 1
    message = capsys.readouterr().err
    assert "--server" in message
    assert "Traceback" not in message


def test_time_to_live_and_idempotency_key_are_passed_on(api: tuple[str, list[Any]]) -> None:
    url, received = api
    assert main(["send", "1", "--server", url, "--ttl", "60", "--idempotency-key", "once"]) == 0
    assert received[0][2] == {"userIds": ["1"], "notification": {}, "ttl": 60}
    assert _Api.headers_received["Idempotency-Key"] == "once"


# Secrets


def test_a_key_is_taken_from_a_file_the_environment_or_standard_input(
    api: tuple[str, list[Any]], env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, received = api
    (tmp_path / "key").write_text("from-file\n")
    assert main(["send", "1", "--server", url, "--key-file", str(tmp_path / "key")]) == 0
    env.setattr("sys.stdin", io.StringIO("from-stdin\n"))
    assert main(["send", "1", "--server", url, "--key-file", "-"]) == 0
    env.setenv("API_KEYS", "from-settings")
    assert main(["send", "1", "--server", url]) == 0
    env.setenv("SOCKET_SERVER_API_KEY", "from-environment")
    assert main(["send", "1", "--server", url]) == 0
    assert [each[1].removeprefix("Bearer ") for each in received] == [
        "from-file",
        "from-stdin",
        "from-settings",
        "from-environment",
    ]


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"\xff\xfe"])
def test_a_file_without_a_key_is_named(
    api: tuple[str, list[Any]], tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    assert main(["send", "1", "--server", api[0], "--key-file", str(path)]) == 1
    assert str(path) in capsys.readouterr().err
    assert api[1] == []


@pytest.mark.parametrize("key", ["מפתח", "a\nb", "caf\xe9", "\ud800"])
def test_a_key_that_no_header_can_carry_is_refused(
    api: tuple[str, list[Any]], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", "1", "--server", api[0], "--key", key]) == 1
    assert "the API key has characters" in capsys.readouterr().err
    assert api[1] == []


def test_credentials_of_the_home_directory_are_not_sent(
    api: tuple[str, list[Any]], env: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url, received = api
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login admin password secret")
    env.setenv("NETRC", str(tmp_path / "netrc"))
    env.delenv("NO_PROXY")
    env.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert main(["send", "1", "--server", url]) == 0
    assert main(["send", "1", "--server", url, "--key", "mine"]) == 0
    assert [each[1] for each in received] == ["", "Bearer mine"]


# Output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "cp1255"])
@pytest.mark.parametrize("value", ["שלום", "😀", "\ud83d", "plain", "\x1b[31m"])
def test_any_notification_is_printed_as_json_on_any_terminal(
    encoding: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
    print_json({"title": value})
    assert json.loads(written.getvalue().decode(encoding)) == {"title": value}
    assert b"\x1b" not in written.getvalue()


@pytest.mark.parametrize(
    ("user", "path"),
    [(".", "/users/%2E/x"), ("..", "/users/%2E%2E/x"), ("a/../b", "/users/a%2F..%2Fb/x"), ("...", "/users/.../x")],
)
def test_a_user_id_of_dots_is_no_directory(user: str, path: str) -> None:
    assert user_path(user, "x") == path


# doctor


def test_the_doctor_takes_the_mode_of_a_folder_that_make_run_has_set_up(
    env: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env.delenv("ENV_FILE")
    env.setenv("PORT", str(free_port()))
    env.setenv("MAX_CONNECTIONS", "100")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert doctor.MADE_BY_MAKE in makefile
    (tmp_path / ".env").write_text(f"{doctor.MADE_BY_MAKE}; production wants its own.\nJWT_SECRET={SECRET}\n")
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    assert "mode development" in said.out
    assert said.err.strip() == "nothing to fix"
    env.setenv("APP_ENV", "production")
    assert main(["doctor"]) == 1


def test_the_doctor_lists_what_is_to_fix(env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    env.setenv("APP_ENV", "production")
    env.setenv("CLIENT_URL", "*")
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert "FIX  API_KEYS" in said.out
    assert "FIX  CLIENT_URL" in said.out
    assert "2 to fix" in said.err
