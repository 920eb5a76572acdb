"""`socket-server send`."""

from typing import Any

import pytest

from socket_server.cli import main
from socket_server.cli.errors import CommandError
from socket_server.cli.main import parser
from socket_server.cli.send import notification
from tests.unit.cli.conftest import Api


def options(*arguments: str) -> Any:
    return parser().parse_args(["send", "123", *arguments])


# The notification


def test_a_plain_title_and_body_are_strings() -> None:
    assert notification(options("--title", "T", "--body", "B")) == {"title": "T", "body": "B"}


def test_languages_are_an_object() -> None:
    built = notification(options("--title-he", "כותרת", "--title-en", "Title", "--body-he", "תוכן"))
    assert built == {"title": {"he": "כותרת", "en": "Title"}, "body": {"he": "תוכן"}}


def test_each_other_option_sets_its_member() -> None:
    arguments = ["--priority", "high", "--url", "/lev", "--icon", "https://x/i.png", "--action-key", "updateTask"]
    assert notification(options(*arguments, "--data", '{"n": 1}')) == {
        "metadata": {"priority": "high", "url": "/lev", "icon": "https://x/i.png"},
        "actionKey": "updateTask",
        "data": {"n": 1},
    }


def test_without_options_the_notification_is_empty() -> None:
    assert notification(options()) == {}


@pytest.mark.parametrize(("data", "value"), [("null", None), ("0", 0), ("[]", []), ('""', "")])
def test_an_empty_value_that_is_given_is_sent(data: str, value: Any) -> None:
    assert notification(options("--title", "", "--data", data)) == {"title": "", "data": value}


@pytest.mark.parametrize("arguments", [["--title", "T", "--title-he", "כ"], ["--body", "", "--body-en", "B"]])
def test_one_text_beside_languages_is_refused(arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=r"--title|--body"):
        notification(options(*arguments))


@pytest.mark.parametrize("data", ["", "{", "nonsense", "{'a': 1}", "NaN", "[-Infinity]"])
def test_data_that_is_not_json_is_refused(data: str) -> None:
    with pytest.raises(CommandError, match="--data is not JSON"):
        notification(options("--data", data))


# The request


def test_send_posts_a_broadcast_and_prints_the_answer(
    api: Api, env: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env.setenv("API_KEYS", "first,second")
    assert main(["send", "1", "2", "--title", "T", "--server", api.url + "/"]) == 0
    (request,) = api.received
    assert (request.method, request.path, request.headers["Authorization"]) == ("POST", "/broadcast", "Bearer first")
    assert request.body == {"userIds": ["1", "2"], "notification": {"title": "T"}}
    assert capsys.readouterr().out.strip() == '{"success":true}'


def test_without_a_key_no_authorization_is_sent(api: Api) -> None:
    assert main(["send", "1", "--server", api.url]) == 0
    assert "Authorization" not in api.received[0].headers


def test_a_refusal_is_status_1(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "1", "--server", api.url, "--key", "wrong"]) == 1
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    "server", [[], ["--server", "http://127.0.0.1:9"], ["--server", "nonsense"], ["--server", "http://[::1"]]
)
def test_if_no_server_answers_the_message_names_the_option(server: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "1", *server]) == 1
    message = capsys.readouterr().err
    assert "--server" in message
    assert "Traceback" not in message


def test_time_to_live_and_idempotency_key_are_passed_on(api: Api) -> None:
    assert main(["send", "1", "--server", api.url, "--ttl", "60", "--idempotency-key", "once"]) == 0
    assert api.received[0].body == {"userIds": ["1"], "notification": {}, "ttl": 60}
    assert api.received[0].headers["Idempotency-Key"] == "once"


@pytest.mark.parametrize("key", ["פעם אחת", "a\nb", "\udcff"])
def test_an_idempotency_key_that_no_header_can_carry_is_refused(
    api: Api, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", "1", "--server", api.url, "--idempotency-key", key]) == 1
    assert "the idempotency key has characters" in capsys.readouterr().err
    assert api.received == []
