"""The page at /, in a browser."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser.conftest import Play
from tests.servers import API_KEY, RunningServer, mint, running

FIRST = {"he": "הוקצתה לך משימה", "en": "You have a task"}
SECOND = {"he": "רק בעברית", "en": ""}


def assert_clean(seen: dict[str, Any], server: RunningServer) -> None:
    """The page talked to its server alone, and the browser found nothing to complain about."""
    hosts = {urlsplit(url).netloc for url in seen["record"]["requests"] if not url.startswith("data:")}
    assert hosts == {f"127.0.0.1:{server.port}"}
    assert seen["record"]["problems"] == []


def test_a_notification_reaches_both_tabs_of_a_user(play: Play, development_server: RunningServer) -> None:
    seen = play("two_tabs.mjs", url=development_server.url, first=FIRST, second=SECOND)
    english, hebrew = seen["onSender"], seen["onOther"]
    assert [each["title"] for each in english] == [SECOND["he"], FIRST["en"]]  # newest first
    assert [each["title"] for each in hebrew] == [SECOND["he"], FIRST["he"]]
    assert {each["dir"] for each in english + hebrew} == {"auto"}
    assert [each["direction"] for each in english] == ["rtl", "ltr"]
    assert [each["direction"] for each in hebrew] == ["rtl", "rtl"]
    assert all(each["latency"] and each["latency"].endswith((" ms", " s")) for each in english)
    assert all(each["offset"] for each in english)
    assert [each["offset"] for each in english] == [each["offset"] for each in hebrew]
    assert seen["figures"] == {"stats-users": "1", "stats-connections": "2"}
    assert seen["sendResult"]
    assert not seen["sentFailed"]
    assert any(url.startswith("ws:") for url in seen["record"]["requests"])
    assert_clean(seen, development_server)


def test_a_refusal_is_shown_with_its_reason(play: Play, development_server: RunningServer) -> None:
    bad = [
        {"userId": "123", "value": "not-a-token", "state": "disconnected"},
        {"userId": "123", "value": mint("123", secret="a-foreign-secret-0123456789-0123456789"), "state": "disconnected"},
    ]
    seen = play("sign_in.mjs", url=development_server.url, signIns=bad)
    states = [each["state"] for each in seen["seen"]]
    assert states == ["disconnected", "disconnected"]
    errors = [each["error"] for each in seen["seen"]]
    assert "Invalid JWT format" in errors[0]
    assert "invalid_format" in errors[0]
    assert "Invalid or expired JWT" in errors[1]
    assert "invalid_token" in errors[1]
    # The client gives up the upgrade that it had begun, and browsers note that; nothing else.
    problems = seen["record"]["problems"]
    problems[:] = [problem for problem in problems if not problem.startswith("console: WebSocket connection to")]
    assert_clean(seen, development_server)


def test_a_hostile_notification_is_shown_as_text(play: Play, development_server: RunningServer) -> None:
    markup = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script><b>bold</b>'
    svg = (
        "data:image/svg+xml;base64,"
        + base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='hacked=1'/>").decode()
    )
    notifications = [
        {
            "title": {"en": markup, "he": markup},
            "body": markup,
            "actionKey": markup,
            "metadata": {"url": "javascript:window.hacked=1", "icon": "http://tracker.example/pixel.png"},
        },
        {
            "title": "tabs and breaks",
            "metadata": {"url": "java\tscript:window.hacked=1", "icon": "javascript:window.hacked=1"},
        },
        {"title": "protocol-relative", "metadata": {"url": "//evil.example/", "icon": "//tracker.example/pixel.png"}},
        {"title": "data", "metadata": {"url": "data:text/html,<script>alert(1)</script>", "icon": svg}},
        {"title": "file", "metadata": {"url": "file:///etc/passwd", "icon": "blob:http://tracker.example/1"}},
        {
            "title": {"__proto__": "x", "<b>": "y"},
            "metadata": {"url": " JAVASCRIPT:alert(1)"},
            "data": {"sentBy": "toString"},
        },
        {"title": {}, "body": {}, "metadata": {}, "data": None},
        json.loads('{"title": {"en": "' + "x" * 50_000 + '"}}'),
    ]
    seen = play("hostile.mjs", url=development_server.url, notifications=notifications)
    assert len(seen["shown"]) == len(notifications)
    first = seen["shown"][-1]
    assert first["title"] == markup
    assert seen["hacked"] is None
    assert [each["markup"] for each in seen["shown"]] == [0] * len(notifications)
    assert [link for each in seen["shown"] for link in each["links"]] == []
    assert {image for each in seen["shown"] for image in each["images"]} <= {svg}
    # An https: icon from anywhere may be shown; nothing else leaves for another host.
    assert not [url for url in seen["record"]["requests"] if url.startswith("http://tracker.example")]
    hosts = {urlsplit(url).hostname for url in seen["record"]["requests"] if not url.startswith("data:")}
    assert hosts <= {"127.0.0.1"}
    assert [problem for problem in seen["record"]["problems"] if not problem.startswith("console: Failed to load")] == []


def test_nothing_is_wider_than_a_phone(play: Play, development_server: RunningServer) -> None:
    seen = play("phone.mjs", url=development_server.url, widths=[320, 390], userId="a-rather-long-user-id@example.com")
    assert [width for width in seen["widths"] if width["over"] > 0] == []
    assert_clean(seen, development_server)


def test_with_DEMO_the_page_works_in_production_with_a_token_and_a_key(play: Play, tmp_path: Path) -> None:  # noqa: N802
    with running(tmp_path, DEMO=1) as server:
        sign_in = {"userId": "123", "value": mint("123"), "state": "authenticated"}
        seen = play("sign_in.mjs", url=server.url, signIns=[sign_in], apiKey=API_KEY)
        assert [each["state"] for each in seen["seen"]] == ["authenticated"]
        assert seen["apiKeyField"]
        assert len(seen["sent"]) == 1
        assert_clean(seen, server)
        assert server.get("/demo/config.json").json()["canMint"] is False
        for body in ({"userId": "123"}, None):
            answer = server.post("/demo/token", json=body)
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/json")
            assert "token" not in answer.json()


@pytest.mark.parametrize("transport", ["websocket", "polling"])
def test_the_page_connects_over_what_the_server_has(play: Play, tmp_path: Path, transport: str) -> None:
    with running(
        tmp_path, APP_ENV="development", JWT_SECRET="", API_KEYS="", CLIENT_URL="", TRANSPORTS=transport
    ) as server:
        seen = play("two_tabs.mjs", url=server.url, first=FIRST, second=SECOND)
        assert seen["figures"] == {"stats-users": "1", "stats-connections": "2"}
        taken = {
            "websocket" if url.startswith("ws:") else "polling" for url in seen["record"]["requests"] if "EIO=4" in url
        }
        assert taken == {transport}
        assert_clean(seen, server)


def test_in_production_there_is_no_page(shared_server: RunningServer) -> None:
    for path in ("/", "/demo/config.json", "/demo/socket.io.min.js", "/demo/static/demo.js", "/demo/static/index.html"):
        answer = shared_server.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "application/json"
        assert set(answer.json()) == {"error", "message"}
    assert shared_server.post("/demo/token", json={"userId": "123"}).status_code == 404
