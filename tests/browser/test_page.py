"""The demo page in a browser."""

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
    """Check that the page has sent requests to its server only, and that the browser reported no error."""
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
    # The client ends the upgrade that it had begun, which browsers report.
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
    # Only an https: icon may be loaded from another host.
    assert not [url for url in seen["record"]["requests"] if url.startswith("http://tracker.example")]
    hosts = {urlsplit(url).hostname for url in seen["record"]["requests"] if not url.startswith("data:")}
    assert hosts <= {"127.0.0.1"}
    assert [problem for problem in seen["record"]["problems"] if not problem.startswith("console: Failed to load")] == []


def test_on_a_phone_nothing_is_too_wide_and_send_and_its_result_stay_in_sight(
    play: Play, development_server: RunningServer
) -> None:
    screens = [[320, 568], [390, 780], [844, 390]]
    seen = play("phone.mjs", url=development_server.url, screens=screens, userId="a-rather-long-user-id@example.com")
    assert [width for width in seen["widths"] if width["over"] > 0] == []
    assert len(seen["sights"]) == 9 * len(screens)
    assert [sight["when"] for sight in seen["sights"] if not sight["inSight"]] == []
    assert_clean(seen, development_server)


@pytest.mark.parametrize(
    ("locale", "texts"),
    [
        (
            "en-GB",
            {
                "recipients": "at least one user ID",
                "all": "Show all",
                "cut": "Only the newest 50 of 62 are listed.",
            },
        ),
        ("he-IL", {"recipients": "לפחות מזהה משתמש אחד", "all": "הצגת הכול", "cut": "50 ההתראות האחרונות מתוך 62"}),
    ],
)
def test_the_form_refuses_no_recipients_and_long_texts_expand(
    play: Play, development_server: RunningServer, locale: str, texts: dict[str, str]
) -> None:
    body = "a long text, " * 400
    seen = play("composer.mjs", url=development_server.url, locale=locale, body=body)
    assert [texts["recipients"] in each["text"] for each in seen["refusals"]] == [True] * 4
    assert [(each["invalid"], each["focused"]) for each in seen["refusals"]] == [("true", True)] * 4
    assert seen["postedWithoutUsers"] == 0
    assert seen["invalidAfter"] is None
    assert seen["collapsed"]["label"] == texts["all"]
    assert seen["expanded"]["text"] == body
    assert (seen["expanded"]["state"], seen["again"]["state"]) == ("true", "false")
    assert seen["expanded"]["height"] > 3 * seen["collapsed"]["height"]
    assert seen["again"]["height"] == pytest.approx(seen["collapsed"]["height"], abs=1)
    assert seen["buttonsOfShort"] == 0
    assert not seen["cutBefore"]
    assert texts["cut"] in seen["cut"]["text"]
    assert seen["cut"]["listed"] == 50
    assert seen["curl"].startswith(f"curl {development_server.url}/broadcast ")
    assert development_server.url in seen["browserCode"]
    assert any("for the code of the page" in line for line in seen["received"])


FAILURES = {
    "en": {
        "unreachable": "Cannot connect: the server does not answer",
        "send": "Not sent: the server does not answer.",
        "signIn": "No token from the server: the server does not answer",
        "refused": {"403": "CLIENT_URL", "429": "too many connections", "503": "is full", "502": "status 502"},
        "token": "Invalid JWT format",
    },
    "he": {
        "unreachable": "ההתחברות נכשלה: השרת לא מגיב",
        "send": "ההתראה לא נשלחה: השרת לא מגיב.",
        "signIn": "לא התקבל אסימון מהשרת: השרת לא מגיב",
        "refused": {"403": "CLIENT_URL", "429": "יותר מדי חיבורים", "503": "השרת מלא", "502": "סטטוס 502"},
        "token": "אינו אסימון תקין",
    },
}


@pytest.mark.parametrize("language", FAILURES)
def test_failures_are_told_in_the_language_of_the_page(
    play: Play, development_server: RunningServer, language: str
) -> None:
    texts: Any = FAILURES[language]
    seen = play("failures.mjs", url=development_server.url, language=language, unreachable=texts["unreachable"])["seen"]
    for name in ("unreachable", "send", "signIn", "token"):
        assert texts[name] in seen[name]
    for status, text in texts["refused"].items():
        assert text in seen["refused"][status]
    assert "xhr" not in str(seen)
    assert "fetch" not in str(seen)


def test_axe_finds_nothing_in_either_language_and_color_scheme(play: Play, development_server: RunningServer) -> None:
    seen = play("accessibility.mjs", url=development_server.url, widths=[1280, 390])
    assert seen["runs"] == 2 * 2 * 2 * 4
    assert seen["violations"] == []
    assert min(seen["contrasts"]) >= 4.5
    assert_clean(seen, development_server)


def test_the_page_works_below_a_base_path(play: Play, tmp_path: Path) -> None:
    settings = {"APP_ENV": "development", "JWT_SECRET": "", "API_KEYS": "", "CLIENT_URL": ""}
    with running(tmp_path, **settings, BASE_PATH="/push") as server:
        for url in (f"{server.url}/push", f"{server.url}/push/"):
            seen = play("two_tabs.mjs", url=url, first=FIRST, second=SECOND)
            assert seen["figures"] == {"stats-users": "1", "stats-connections": "2"}
            paths = {urlsplit(each).path for each in seen["record"]["requests"] if not each.startswith("data:")}
            assert [path for path in paths if not path.startswith("/push/") and path != "/push"] == []
            assert_clean(seen, server)


def test_in_production_with_demo_the_page_works_with_a_token_and_a_key(play: Play, tmp_path: Path) -> None:
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
def test_the_page_uses_the_transports_of_the_server(play: Play, tmp_path: Path, transport: str) -> None:
    with running(
        tmp_path, APP_ENV="development", JWT_SECRET="", API_KEYS="", CLIENT_URL="", TRANSPORTS=transport
    ) as server:
        seen = play("two_tabs.mjs", url=server.url, first=FIRST, second=SECOND)
        assert seen["figures"] == {"stats-users": "1", "stats-connections": "2"}
        used = {"websocket" if url.startswith("ws:") else "polling" for url in seen["record"]["requests"] if "EIO=4" in url}
        assert used == {transport}
        assert_clean(seen, server)


def test_in_production_the_page_is_a_404(shared_server: RunningServer) -> None:
    for path in ("/", "/demo/config.json", "/demo/socket.io.min.js", "/demo/static/demo.js", "/demo/static/index.html"):
        answer = shared_server.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["Content-Type"] == "application/json"
        assert set(answer.json()) == {"error", "message"}
    assert shared_server.post("/demo/token", json={"userId": "123"}).status_code == 404
