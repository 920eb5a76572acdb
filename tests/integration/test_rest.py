"""The REST API, word for word (contract, section 2)."""

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw
from tests.servers import API_KEY, RunningServer, mint, running, wait_for

KEY = {"Authorization": f"Bearer {API_KEY}"}
JSON = {"Content-Type": "application/json"}
ALLOWED, FOREIGN = "http://app.example.com", "http://evil.example.com"
SECOND_KEY = "another-api-key-for-tests-9876543210"


@pytest.fixture(scope="module")
def small_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with low limits and two API keys."""
    with running(
        tmp_path_factory.mktemp("small"),
        MAX_BODY_BYTES=4096,
        MAX_USERS_PER_BROADCAST=5,
        API_KEYS=f"{API_KEY}, {SECOND_KEY}",
        CLIENT_URL=f"{ALLOWED},https://other.example.com/",
    ) as server:
        server.api_key = API_KEY
        yield server


@pytest.fixture(scope="module")
def development_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A development server without any secret."""
    with running(tmp_path_factory.mktemp("dev"), APP_ENV="development", JWT_SECRET="", API_KEYS="") as server:
        yield server


def assert_error(answer: requests.Response, status: int, error: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "message"}
    assert all(isinstance(text, str) and text for text in body.values())
    if error is not None:
        assert body["error"] == error


# Monitoring


def test_health_says_healthy_since_when_and_with_how_many(shared_server: RunningServer) -> None:
    answer = shared_server.get("/health")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"status", "uptime", "stats", "timestamp"}
    assert body["status"] == "healthy"
    assert isinstance(body["uptime"], (int, float))
    assert body["uptime"] >= 0
    assert set(body["stats"]) == {"connectedUsers", "totalConnections", "averageConnectionsPerUser"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    assert shared_server.get("/health").json()["uptime"] >= body["uptime"]


def test_live_says_only_that_the_process_runs(shared_server: RunningServer) -> None:
    answer = shared_server.get("/health/live")
    assert answer.status_code == 200
    assert "stats" not in answer.json()


def test_stats_are_zero_without_connections(shared_server: RunningServer) -> None:
    shared_server.wait_for_connections(0)
    assert shared_server.stats() == {"connectedUsers": 0, "totalConnections": 0, "averageConnectionsPerUser": 0}


def test_stats_count_authenticated_connections_and_do_not_round_the_average(
    shared_server: RunningServer, opens: Opens
) -> None:
    for user in ("a", "a", "b", "c"):
        opens(shared_server).sign_in({"token": mint(user)})
    opens(shared_server).connect()  # not authenticated
    stats = shared_server.stats()
    assert stats == {"connectedUsers": 3, "totalConnections": 4, "averageConnectionsPerUser": 4 / 3}
    assert shared_server.get("/health").json()["stats"] == stats


# Broadcast: what is accepted


def test_a_broadcast_counts_users_connections_and_requested_users(shared_server: RunningServer, opens: Opens) -> None:
    phone, tab = opens(shared_server), opens(shared_server, "polling")
    for connection in (phone, tab):
        connection.sign_in({"token": mint("ada")})
    other = opens(shared_server)
    other.sign_in({"token": mint("ben")})
    answer = shared_server.broadcast(["ada", "ada", "ben", "offline"], {"title": "hi"})
    assert answer.status_code == 200
    body = answer.json()
    offset = body.pop("id")
    assert re.fullmatch(r"[0-9]+", offset)
    assert body == {"success": True, "deliveredTo": 2, "totalSockets": 3, "requestedUsers": 4}
    for connection in (phone, tab, other):
        assert connection.event() == ["notification", {"title": "hi"}, offset]
        connection.pong()  # once: nothing came between


def test_offsets_grow(shared_server: RunningServer) -> None:
    offsets = [int(shared_server.broadcast(["x"], {}).json()["id"]) for _ in range(20)]
    assert offsets == sorted(set(offsets))


@pytest.mark.parametrize(
    ("given", "user"),
    [("5", "5"), (5, "5"), (-7, "-7"), (12345678901234567890123, "12345678901234567890123"), ("משתמש", "משתמש")],
)
def test_user_ids_are_strings_or_numbers(shared_server: RunningServer, opens: Opens, given: Any, user: str) -> None:
    connection = opens(shared_server)
    assert connection.sign_in({"token": mint(user)})["userId"] == user
    assert shared_server.broadcast([given], {}).json()["totalSockets"] == 1
    assert connection.event()[:2] == ["notification", {}]


@pytest.mark.parametrize(
    "notification",
    [
        {},
        {"title": "plain", "body": "text"},
        {"title": {"he": "כותרת", "en": "Title"}, "body": {"he": "תוכן", "en": "Content"}},
        *({"metadata": {"priority": priority}} for priority in ("low", "normal", "high")),
        {"metadata": {"url": "/lev", "icon": "https://example.com/i.png", "anything": [1, None]}},
        {"actionKey": "updateTask", "data": {"any": ["thing"]}, "updateStrategy": {"type": "partialUpdate"}},
        {"unknown": {"fields": True}},
    ],
)
def test_a_good_notification_is_accepted(shared_server: RunningServer, notification: Any) -> None:
    body = shared_server.broadcast(["nobody"], notification).json()
    assert (body["success"], body["deliveredTo"], body["totalSockets"], body["requestedUsers"]) == (True, 0, 0, 1)


def test_no_users_at_all_are_fine(shared_server: RunningServer) -> None:
    assert shared_server.broadcast([], {"title": "x"}).json()["requestedUsers"] == 0


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
def test_json_may_carry_parameters(shared_server: RunningServer, content_type: str) -> None:
    headers = KEY | {"Content-Type": content_type}
    assert shared_server.post("/broadcast", data='{"userIds":[],"notification":{}}', headers=headers).status_code == 200


@pytest.mark.parametrize(
    "notification",
    [
        b'{ "z" : 1 ,"a":2,   "data":{"big":12345678901234567890123,"f":1.10,"e":1E5,"n":-0.0}}',
        b'{"title":"\\u05d0\\/\\"\\n","body":"\xd7\x90\xf0\x9f\x98\x80"}',
        b'{"data":{"html":"<b>&amp;</b>","list":[[],{},null,true]},"\xd7\x9e":"\xd7\xa9"}',
        b"{\n}",
    ],
)
def test_a_notification_reaches_clients_byte_for_byte(
    shared_server: RunningServer, opens: Opens, opens_raw: OpensRaw, notification: bytes
) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("exact"))
    polling = opens(shared_server, "polling")
    polling.sign_in({"token": mint("exact")})
    body = b'{"notification":%b,"userIds":["exact"]}' % notification
    answer = shared_server.post("/broadcast", data=body, headers=KEY | JSON)
    assert answer.json()["totalSockets"] == 2
    expected = b'42["notification",%b,"%b"]' % (notification, answer.json()["id"].encode())
    assert raw.text().encode() == expected
    received = polling.receive()
    assert isinstance(received, str)
    assert received.encode() == expected


def test_half_a_surrogate_pair_is_json_and_arrives_as_such(shared_server: RunningServer, opens: Opens) -> None:
    connection = opens(shared_server)
    connection.sign_in({"token": mint("cut")})
    body = b'{"userIds":["cut"],"notification":{"title":"cut \\ud83d"}}'
    assert shared_server.post("/broadcast", data=body, headers=KEY | JSON).status_code == 200
    assert connection.event()[1] == {"title": "cut \ud83d"}


# Broadcast: what is refused


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"notification": {}}, "userIds must be an array"),
        ({"userIds": None, "notification": {}}, "userIds must be an array"),
        ({"userIds": "123", "notification": {}}, "userIds must be an array"),
        ({"userIds": {"0": "123"}, "notification": {}}, "userIds must be an array"),
        ({"userIds": 123, "notification": {}}, "userIds must be an array"),
        ([], "userIds must be an array"),
        ("text", "userIds must be an array"),
        (None, "userIds must be an array"),
        ({"userIds": ["1", None], "notification": {}}, "userIds[1] must be a string"),
        ({"userIds": [True], "notification": {}}, "userIds[0] must be a string"),
        ({"userIds": ["a", "b", ["c"]], "notification": {}}, "userIds[2] must be a string"),
        ({"userIds": [{}], "notification": {}}, "userIds[0] must be a string"),
        ({"userIds": ["1"]}, "notification is required"),
        ({"userIds": ["1"], "notification": None}, "notification is required"),
        ({"userIds": ["1"], "notification": "text"}, "notification is required"),
        ({"userIds": ["1"], "notification": []}, "notification is required"),
    ],
)
def test_a_body_of_the_wrong_shape_is_a_400_with_the_contracts_words(
    shared_server: RunningServer, body: Any, error: str
) -> None:
    answer = shared_server.post("/broadcast", data=json.dumps(body), headers=KEY | JSON)
    assert_error(answer, 400, error)


@pytest.mark.parametrize(
    ("notification", "path"),
    [
        ({"title": 1}, "notification.title"),
        ({"title": None}, "notification.title"),
        ({"title": ["a"]}, "notification.title"),
        ({"title": {"he": 5}}, "notification.title.he"),
        ({"body": False}, "notification.body"),
        ({"body": {"en": None}}, "notification.body.en"),
        ({"metadata": "x"}, "notification.metadata"),
        ({"metadata": []}, "notification.metadata"),
        ({"metadata": {"priority": "urgent"}}, "notification.metadata.priority"),
        ({"metadata": {"priority": 1}}, "notification.metadata.priority"),
        ({"metadata": {"priority": None}}, "notification.metadata.priority"),
        ({"metadata": {"priority": ["low"]}}, "notification.metadata.priority"),
        ({"metadata": {"priority": {}}}, "notification.metadata.priority"),
    ],
)
def test_a_field_of_the_wrong_type_is_a_400_naming_its_path(
    shared_server: RunningServer, notification: Any, path: str
) -> None:
    answer = shared_server.broadcast(["1"], notification)
    assert_error(answer, 400)
    assert answer.json()["error"].startswith(f"{path} must be ")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'{"userIds":["1"],"notification":{}',
        b'{"userIds":["1"],"notification":{"data":NaN}}',
        b'{"userIds":["1"],"notification":{"data":Infinity}}',
        b'{"userIds":["1"],"notification":{"data":-Infinity}}',
        b"{'userIds':[],'notification':{}}",
        b'{"userIds":["1"],"notification":{"title":"\xff\xfe"}}',
        b'{"userIds":["1"],"notification":{}} trailing',
        b'{"userIds":["1"],"notification":{"data":%b%b}}' % (b"[" * 100_000, b"]" * 100_000),
    ],
    ids=["empty", "text", "cut", "NaN", "Infinity", "-Infinity", "quotes", "not UTF-8", "trailing", "deep"],
)
def test_what_is_not_json_is_an_invalid_request(shared_server: RunningServer, body: bytes) -> None:
    assert_error(shared_server.post("/broadcast", data=body, headers=KEY | JSON), 400, "Invalid request")


@pytest.mark.parametrize("user_id", ["", "x" * 257, "é" * 129], ids=["empty", "257 bytes", "258 bytes"])
def test_a_user_id_that_is_empty_or_too_long_is_a_400_naming_its_index(shared_server: RunningServer, user_id: str) -> None:
    broadcast = {"userIds": ["1", user_id], "notification": {}}
    answer = shared_server.post("/broadcast", json=broadcast, headers=KEY)
    assert_error(answer, 400)
    assert answer.json()["error"].startswith("userIds[1] must ")
    batch = shared_server.post("/broadcast/batch", json={"broadcasts": [broadcast]}, headers=KEY).json()
    assert batch["results"] == [answer.json() | {"status": 400}]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/broadcast", b'{"userIds":["1"],"notification":{}}'),
        ("/broadcast/batch", b'{"broadcasts":[{"userIds":["1"],"notification":{}}]}'),
    ],
)
def test_a_utf_8_byte_order_mark_before_the_body_is_skipped(shared_server: RunningServer, path: str, body: bytes) -> None:
    assert shared_server.post(path, data=b"\xef\xbb\xbf" + body, headers=KEY | JSON).status_code == 200


@pytest.mark.parametrize("ttl", [-1, "60", True, [], {}])
def test_a_ttl_is_a_number_of_seconds(shared_server: RunningServer, ttl: Any) -> None:
    body = {"userIds": [], "notification": {}, "ttl": ttl}
    answer = shared_server.post("/broadcast", json=body, headers=KEY)
    assert_error(answer, 400)
    assert answer.json()["error"].startswith("ttl must be ")


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_that_does_not_say_json_is_a_415(shared_server: RunningServer, content_type: str | None) -> None:
    headers = KEY | ({"Content-Type": content_type} if content_type else {})
    answer = shared_server.post("/broadcast", data=b'{"userIds":[],"notification":{}}', headers=headers)
    assert_error(answer, 415, "Unsupported Media Type")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {API_KEY}",
        API_KEY,
        f"Bearer {API_KEY}x",
        f"Bearer {API_KEY[:-1]}",
    ],
)
def test_without_a_key_it_is_a_401_that_names_the_scheme(shared_server: RunningServer, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = shared_server.post("/broadcast", json={"userIds": [], "notification": {}}, headers=headers)
    assert_error(answer, 401, "Unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_stranger_learns_nothing_about_the_body(shared_server: RunningServer) -> None:
    for body, headers in ((b"not json", JSON), (b"x", {"Content-Type": "text/plain"})):
        assert shared_server.post("/broadcast", data=body, headers=headers).status_code == 401


def test_a_token_of_a_user_is_no_api_key(shared_server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {mint('1')}"}
    assert shared_server.post("/broadcast", json={"userIds": [], "notification": {}}, headers=headers).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_may_be_in_any_case(shared_server: RunningServer, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {API_KEY}"}
    assert shared_server.post("/broadcast", json={"userIds": [], "notification": {}}, headers=headers).status_code == 200


@pytest.mark.parametrize("key", [API_KEY, SECOND_KEY])
def test_each_of_several_keys_is_taken(small_server: RunningServer, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    assert small_server.post("/broadcast", json={"userIds": [], "notification": {}}, headers=headers).status_code == 200


def test_the_list_of_keys_is_no_key(small_server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {API_KEY}, {SECOND_KEY}"}
    assert small_server.post("/broadcast", json={"userIds": [], "notification": {}}, headers=headers).status_code == 401


def test_wrong_keys_are_logged_and_above_the_rate_a_429_but_a_right_key_is_not(tmp_path: Path) -> None:
    with running(tmp_path, MAX_AUTH_FAILURES_PER_MINUTE=12) as server:
        body = {"userIds": ["1"], "notification": {}}

        def call(authorization: str) -> requests.Response:
            return server.post("/broadcast", json=body, headers={"Authorization": authorization})

        answers = [call("Bearer wrong") for _ in range(15)]
        assert [answer.status_code for answer in answers] == [401] * 12 + [429] * 3
        assert_error(answers[-1], 429, "Too Many Requests")
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert call(f"Bearer {API_KEY}").status_code == 200
        assert server.get(path_of("x"), headers={"Authorization": "Bearer wrong"}).status_code == 429
        wait_for(lambda: "left_out=6" in server.log(), what="the count of the lines left out")
        lines = [line for line in server.log().splitlines() if "wrong API key" in line]
        assert len(lines) == 10
        assert "path=/broadcast status=401" in lines[0]
        assert "address=127.0.0.1" in lines[0]
        assert "Bearer" not in server.log()


@pytest.mark.parametrize("path", ["/users/{}/notifications", "/users/{}/connections"])
@pytest.mark.parametrize(("user", "status"), [("x" * 256, 200), ("x" * 257, 400), ("é" * 128, 200), ("é" * 129, 400)])
def test_a_user_id_in_a_path_has_at_most_256_bytes(shared_server: RunningServer, path: str, user: str, status: int) -> None:
    answer = shared_server.get(path.format(quote(user)), headers=KEY)
    assert answer.status_code == status
    if status == 400:
        assert_error(answer, 400)
        assert "256" in answer.json()["error"]
        assert shared_server.get(path.format(quote(user))).status_code == 401, "the key is checked first"


def test_too_many_users_are_a_413(small_server: RunningServer) -> None:
    assert small_server.broadcast(["1"] * 5, {}).status_code == 200
    assert_error(small_server.broadcast(["1"] * 6, {}), 413)


def test_a_declared_body_that_is_too_large_is_a_413(small_server: RunningServer) -> None:
    assert_error(small_server.broadcast(["1"], {"data": "x" * 5000}), 413)


def test_a_body_declared_too_large_is_refused_before_it_is_sent(small_server: RunningServer) -> None:
    head = (
        f"POST /broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", small_server.port), timeout=10) as sock:
        sock.sendall(head.encode())
        assert sock.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_that_is_too_large_is_a_413(small_server: RunningServer) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"userIds":["1"],"notification":{"data":"'
        for _ in range(8):
            yield b"x" * 1000
        yield b'"}}'

    assert_error(small_server.post("/broadcast", data=chunks(), headers=KEY | JSON), 413)


def test_a_chunked_body_of_a_good_size_is_taken(small_server: RunningServer) -> None:
    parts = iter([b'{"userIds":["1"],', b'"notification":{}}'])
    assert small_server.post("/broadcast", data=parts, headers=KEY | JSON).json()["requestedUsers"] == 1


@pytest.mark.parametrize(
    "path", ["/nothing", "/broadcast/x", "/health/", "/stats/x", "/../etc/passwd", "/%00", "/favicon.ico"]
)
def test_an_unknown_path_is_a_404(shared_server: RunningServer, path: str) -> None:
    assert_error(shared_server.get(path), 404, "Not Found")


@pytest.mark.parametrize(
    ("method", "path", "takes"),
    [
        ("GET", "/broadcast", "POST"),
        ("PUT", "/broadcast", "POST"),
        ("DELETE", "/broadcast", "POST"),
        ("POST", "/health", "GET"),
        ("POST", "/health/live", "GET"),
        ("PATCH", "/stats", "GET"),
    ],
)
def test_another_method_is_a_405_with_allow(shared_server: RunningServer, method: str, path: str, takes: str) -> None:
    answer = shared_server.session.request(method, shared_server.url + path, timeout=10)
    assert_error(answer, 405, "Method Not Allowed")
    allowed = {name.strip() for name in answer.headers["Allow"].split(",")}
    assert takes in allowed
    assert method not in allowed


def test_errors_are_not_escaped_either(shared_server: RunningServer) -> None:
    answer = shared_server.broadcast(["1"], {"title": {"שפה": 1}})
    assert_error(answer, 400)
    assert "notification.title.שפה".encode() in answer.content
    assert b"\\u" not in answer.content


def test_a_request_that_is_not_http_breaks_no_other(shared_server: RunningServer) -> None:
    for nonsense in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST /broadcast HTTP/1.1\r\n"):
        with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as sock:
            sock.sendall(nonsense)
    assert shared_server.get("/health").status_code == 200


def test_one_http_connection_serves_many_requests(shared_server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", shared_server.port, timeout=10)
    try:
        for path, status in (("/health", 200), ("/nothing", 404), ("/stats", 200), ("/broadcast", 405)):
            connection.request("GET", path)
            used = connection.sock
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status
            assert connection.sock is used
    finally:
        connection.close()


# Idempotency keys


GOOD = b'{"userIds":["%b"],"notification":{"title":"once"}}'


@pytest.fixture(scope="module")
def inbox_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with an inbox of its own."""
    path = tmp_path_factory.mktemp("inbox")
    with running(path, INBOX_URL=f"sqlite:///{path}/inbox.db") as server:
        yield server


def post(server: RunningServer, body: bytes, key: str) -> requests.Response:
    return server.post("/broadcast", data=body, headers=KEY | JSON | {"Idempotency-Key": key})


def test_a_repeat_with_the_same_key_gets_the_first_answer_and_is_delivered_once(
    inbox_server: RunningServer, opens: Opens
) -> None:
    connection = opens(inbox_server)
    connection.sign_in({"token": mint("once")})
    first = post(inbox_server, GOOD % b"once", "the-key-of-once")
    assert first.json()["totalSockets"] == 1
    opens(inbox_server).sign_in({"token": mint("once")})
    for _ in range(3):
        again = post(inbox_server, GOOD % b"once", "the-key-of-once")
        assert (again.status_code, again.json()) == (200, first.json())
    assert connection.event() == ["notification", {"title": "once"}, first.json()["id"]]
    connection.pong()  # once: nothing came between
    assert kept(inbox_server, "once")["total"] == 1


@pytest.mark.parametrize(
    "other", [b' {"userIds":["x"],"notification":{"title":"once"}}', b'{"userIds":["y"],"notification":{}}']
)
def test_the_same_key_with_another_body_is_a_422(inbox_server: RunningServer, other: bytes) -> None:
    first = post(inbox_server, GOOD % b"x", "key-422")
    assert first.status_code == 200
    assert_error(post(inbox_server, other, "key-422"), 422)
    assert post(inbox_server, GOOD % b"x", "key-422").json() == first.json()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_no_key_is_a_400_by_its_name(inbox_server: RunningServer, key: str) -> None:
    answer = post(inbox_server, GOOD % b"x", key)
    assert_error(answer, 400)
    assert answer.json()["error"].startswith("Idempotency-Key must be ")


def test_a_request_that_was_refused_does_not_use_its_key_up(inbox_server: RunningServer) -> None:
    assert_error(post(inbox_server, b'{"userIds":["x"]}', "key-refused"), 400, "notification is required")
    assert post(inbox_server, GOOD % b"x", "key-refused").status_code == 200


def test_many_with_one_key_at_once_are_delivered_once(inbox_server: RunningServer, opens: Opens) -> None:
    connection = opens(inbox_server)
    connection.sign_in({"token": mint("crowd")})
    answers: list[requests.Response] = []
    start = threading.Barrier(8)

    def publish() -> None:
        start.wait()
        answers.append(
            requests.post(
                f"{inbox_server.url}/broadcast",
                data=GOOD % b"crowd",
                headers=KEY | JSON | {"Idempotency-Key": "key-of-the-crowd"},
                timeout=10,
            )
        )

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert good
    assert all(each == good[0] for each in good)
    for answer in answers:
        if answer.status_code != 200:
            assert_error(answer, 409)
    assert connection.event()[2] == good[0]["id"]
    connection.pong()


def test_a_key_belongs_to_the_api_key_that_used_it(tmp_path: Path) -> None:
    with running(tmp_path, API_KEYS=f"{API_KEY},{SECOND_KEY}") as server:
        server.api_key = API_KEY

        def send(api_key: str, title: str) -> requests.Response:
            body = {"userIds": ["1"], "notification": {"title": title}}
            headers = {"Authorization": f"Bearer {api_key}", "Idempotency-Key": "shared"}
            return server.post("/broadcast", json=body, headers=headers)

        first, other = send(API_KEY, "one"), send(SECOND_KEY, "two")
        assert (first.status_code, other.status_code) == (200, 200)
        assert first.json()["id"] != other.json()["id"]
        assert send(API_KEY, "one").json()["id"] == first.json()["id"]
        assert send(SECOND_KEY, "two").json()["id"] == other.json()["id"]
        assert send(SECOND_KEY, "one").status_code == 422
        batch = {"userIds": ["1"], "notification": {"title": "one"}, "idempotencyKey": "shared"}
        answer = server.post(
            "/broadcast/batch", json={"broadcasts": [batch]}, headers={"Authorization": f"Bearer {SECOND_KEY}"}
        )
        assert answer.json()["results"][0]["status"] == 422


def test_in_a_batch_each_broadcast_has_its_own_key(inbox_server: RunningServer, opens: Opens) -> None:
    connection = opens(inbox_server)
    connection.sign_in({"token": mint("batch")})

    def send(*items: tuple[str, int]) -> list[dict[str, Any]]:
        broadcasts = [{"userIds": ["batch"], "notification": {"n": n}, "idempotencyKey": key} for key, n in items]
        answer = inbox_server.post("/broadcast/batch", json={"broadcasts": broadcasts}, headers=KEY)
        assert answer.status_code == 200
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    first, second = send(("batch-a", 1), ("batch-b", 2))
    assert int(first["id"]) < int(second["id"])
    again, other, bad, new = send(("batch-a", 1), ("batch-b", 7), ("", 3), ("batch-c", 4))
    assert again == first
    assert other["status"] == 422
    assert (bad["status"], bad["error"].split(" ")[0]) == (400, "idempotencyKey")
    assert [connection.event() for _ in range(3)] == [
        ["notification", {"n": n}, each["id"]] for n, each in ((1, first), (2, second), (4, new))
    ]
    connection.pong()


def test_a_repeat_after_a_crash_gets_the_first_answer(tmp_path: Path, opens: Opens) -> None:
    url = f"sqlite:///{tmp_path}/inbox.db"
    with running(tmp_path, INBOX_URL=url) as server:
        connection = opens(server)
        connection.sign_in({"token": mint("x")})
        first = post(server, GOOD % b"x", "before-the-crash")
        assert first.json()["totalSockets"] == 1
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with running(tmp_path, INBOX_URL=url) as server:
        connection = opens(server)
        connection.sign_in({"token": mint("x")})
        assert post(server, GOOD % b"x", "before-the-crash").json() == first.json()
        assert_error(post(server, GOOD % b"y", "before-the-crash"), 422)
        connection.pong()
        assert kept(server, "x")["total"] == 1
        assert int(server.broadcast(["x"], {}).json()["id"]) > int(first.json()["id"])


# What is kept for a user


def path_of(user_id: str) -> str:
    return f"/users/{quote(user_id, safe='')}/notifications"


def kept(server: RunningServer, user_id: str, **parameters: Any) -> dict[str, Any]:
    answer = server.get(path_of(user_id), params=parameters, headers=KEY)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = answer.json()
    return body


def test_what_is_kept_for_a_user_is_listed_oldest_first(inbox_server: RunningServer) -> None:
    assert kept(inbox_server, "list") == {"notifications": [], "total": 0}
    before = time.time()
    ids = [inbox_server.broadcast(["list", "other"], {"n": n}).json()["id"] for n in range(3)]
    body = kept(inbox_server, "list")
    assert set(body) == {"notifications", "total"}
    assert body["total"] == 3
    assert [(each["id"], each["notification"]) for each in body["notifications"]] == [
        (offset, {"n": n}) for n, offset in enumerate(ids)
    ]
    for each in body["notifications"]:
        assert set(each) == {"id", "at", "notification"}
        assert before - 1 <= each["at"] <= time.time() + 1


def test_what_is_kept_is_what_was_sent_byte_for_byte(inbox_server: RunningServer) -> None:
    raw = '{ "z" : 1.10, "title":"שלום","big":12345678901234567890123 }'.encode()
    inbox_server.post("/broadcast", data=b'{"userIds":["raw"],"notification":%b}' % raw, headers=KEY | JSON)
    answer = inbox_server.get(path_of("raw"), headers=KEY)
    assert raw in answer.content


def test_it_is_listed_page_by_page(inbox_server: RunningServer) -> None:
    ids = [inbox_server.broadcast(["pages"], {"n": n}).json()["id"] for n in range(7)]
    found: list[str] = []
    after, totals = "0", []
    while True:
        body = kept(inbox_server, "pages", after=after, limit=3)
        totals.append(body["total"])
        if not body["notifications"]:
            break
        assert len(body["notifications"]) <= 3
        found += [each["id"] for each in body["notifications"]]
        after = found[-1]
    assert found == ids
    assert totals == [7, 4, 1, 0]
    assert kept(inbox_server, "pages", after=ids[2])["complete"] is True
    assert kept(inbox_server, "pages", after=ids[6]) == {"notifications": [], "total": 0, "complete": True}
    assert kept(inbox_server, "pages", after=int(ids[6]) + 10**12)["complete"] is False
    assert len(kept(inbox_server, "pages", limit=1000)["notifications"]) == 7


def test_without_a_limit_it_is_a_hundred_at_once(inbox_server: RunningServer) -> None:
    one = {"userIds": ["many"], "notification": {}}
    inbox_server.post("/broadcast/batch", json={"broadcasts": [one] * 150}, headers=KEY)
    body = kept(inbox_server, "many")
    assert (len(body["notifications"]), body["total"]) == (100, 150)


@pytest.mark.parametrize(
    "user",
    [
        *("משתמש", "a/b", "a/", "/a", "a//b", "//", "notifications", "x/notifications", "/notifications"),
        *("a b", "a?b=c", "a#b", "100%", "%2F", "a+b", "😀", "a\nb", "\n"),
    ],
)
def test_any_users_id_can_be_named_by_its_path(inbox_server: RunningServer, user: str) -> None:
    offset = inbox_server.broadcast([user], {"for": user}).json()["id"]
    [only] = kept(inbox_server, user)["notifications"]
    assert (only["id"], only["notification"]) == (offset, {"for": user})
    answer = inbox_server.session.delete(inbox_server.url + path_of(user), headers=KEY, timeout=10)
    assert answer.json() == {"success": True, "deleted": 1}
    assert kept(inbox_server, user)["total"] == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("after", value) for value in ("", "x", "-1", "1.5", "1e3", "٣", "1" * 20, " 1")),
        *(("limit", value) for value in ("", "x", "-1", "0", "1001", "1.5", "1" * 20, "true")),
    ],
)
def test_a_bad_parameter_is_a_400_that_names_it(inbox_server: RunningServer, name: str, value: str) -> None:
    answer = inbox_server.get(path_of("x"), params={name: value}, headers=KEY)
    assert_error(answer, 400)
    assert answer.json()["error"].startswith(f"{name} must be ")


def test_what_is_forgotten_is_gone_for_this_user_alone(inbox_server: RunningServer, opens: Opens) -> None:
    ids = [inbox_server.broadcast(["forget", "remember"], {"n": n}).json()["id"] for n in range(3)]
    answer = inbox_server.session.delete(inbox_server.url + path_of("forget"), headers=KEY, timeout=10)
    assert (answer.status_code, answer.json()) == (200, {"success": True, "deleted": 3})
    assert kept(inbox_server, "forget")["total"] == 0
    assert kept(inbox_server, "remember")["total"] == 3
    assert kept(inbox_server, "forget", after=ids[0])["complete"] is False
    again = inbox_server.session.delete(inbox_server.url + path_of("forget"), headers=KEY, timeout=10)
    assert again.json() == {"success": True, "deleted": 0}
    later = inbox_server.broadcast(["forget"], {}).json()["id"]
    assert int(later) > int(ids[-1])
    assert [each["id"] for each in kept(inbox_server, "forget")["notifications"]] == [later]
    success = opens(inbox_server).sign_in({"token": mint("forget"), "lastId": ids[0]})
    assert (success["recovered"], success["replayed"]) == (False, 1)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {API_KEY}"}])
def test_without_a_key_nothing_is_listed_or_forgotten(
    inbox_server: RunningServer, method: str, headers: dict[str, str]
) -> None:
    inbox_server.broadcast(["secret"], {})
    before = kept(inbox_server, "secret")["total"]
    for url in (path_of("secret"), path_of("secret") + "?limit=x"):
        answer = inbox_server.session.request(method, inbox_server.url + url, headers=headers, timeout=10)
        assert_error(answer, 401, "Unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert kept(inbox_server, "secret")["total"] == before


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_what_is_kept_takes_no_other_method(inbox_server: RunningServer, method: str) -> None:
    answer = inbox_server.session.request(method, inbox_server.url + path_of("x"), headers=KEY, timeout=10)
    assert_error(answer, 405, "Method Not Allowed")
    assert {"GET", "DELETE"} <= {name.strip() for name in answer.headers["Allow"].split(",")}


# Time to live


def send_for(server: RunningServer, user_id: str, ttl: float | None) -> str:
    body = {"userIds": [user_id], "notification": {"ttl": ttl}, "ttl": ttl}
    answer = server.post("/broadcast", json=body, headers=KEY)
    assert answer.status_code == 200, answer.text
    offset: str = answer.json()["id"]
    return offset


def test_without_time_to_live_it_is_for_who_is_connected_now(inbox_server: RunningServer, opens: Opens) -> None:
    connection = opens(inbox_server)
    start = connection.sign_in({"token": mint("live")})["lastId"]
    ids = [send_for(inbox_server, "live", ttl) for ttl in (None, 0, 60)]
    assert [connection.event()[2] for _ in ids] == ids
    assert [each["id"] for each in kept(inbox_server, "live")["notifications"]] == [ids[0], ids[2]]
    again = opens(inbox_server)
    success = again.sign_in({"token": mint("live"), "lastId": start})
    assert (success["recovered"], success["replayed"], success["lastId"]) == (True, 2, ids[2])
    assert [again.event()[2] for _ in range(2)] == [ids[0], ids[2]]
    again.pong()


def test_what_has_outlived_its_time_is_not_kept_and_not_missed(inbox_server: RunningServer, opens: Opens) -> None:
    start = opens(inbox_server).sign_in({"token": mint("brief")})["lastId"]
    send_for(inbox_server, "brief", 0.5)
    lasting = send_for(inbox_server, "brief", 3600)
    assert kept(inbox_server, "brief")["total"] == 2
    wait_for(lambda: kept(inbox_server, "brief")["total"] == 1, what="the end of its time")
    assert [each["id"] for each in kept(inbox_server, "brief")["notifications"]] == [lasting]
    assert kept(inbox_server, "brief", after=start)["complete"] is True
    connection = opens(inbox_server)
    success = connection.sign_in({"token": mint("brief"), "lastId": start})
    assert (success["recovered"], success["replayed"]) == (True, 1)
    assert connection.event()[2] == lasting
    connection.pong()


# An inbox that cannot be written


def test_without_its_inbox_a_server_accepts_nothing_and_says_so_until_it_is_back(tmp_path: Path, opens: Opens) -> None:
    place = tmp_path / "data"
    place.touch()  # a file where the inbox's directory should be
    with running(tmp_path, INBOX_URL=f"sqlite:///{place}/inbox.db") as server:
        connection = opens(server)
        connection.sign_in({"token": mint("x")})
        batch = {"broadcasts": [{"userIds": ["x"], "notification": {}}]}
        for answer in (
            server.broadcast(["x"], {}),
            server.post("/broadcast/batch", json=batch, headers=KEY),
            server.get(path_of("x"), headers=KEY),
            server.session.delete(server.url + path_of("x"), headers=KEY, timeout=10),
        ):
            assert_error(answer, 503, "Service Unavailable")
            assert answer.headers["Retry-After"]
        assert_error(server.post("/broadcast", data=b"{}", headers=KEY | JSON), 400)  # that does not depend on the inbox
        health = server.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "unhealthy")
        assert set(health.json()["checks"]) == {"inbox"}
        assert str(tmp_path) not in health.text, "it reveals the address of the inbox"
        assert str(place) in server.get("/health", headers=KEY).json()["checks"]["inbox"]
        assert health.json()["stats"]["totalConnections"] == 1
        assert server.get("/health/live").status_code == 200
        connection.pong()
        place.unlink()
        sent = wait_for(lambda: (answer := server.broadcast(["x"], {"title": "back"})).ok and answer, what="its return")
        assert connection.event() == ["notification", {"title": "back"}, sent.json()["id"]]
        wait_for(lambda: server.get("/health").ok, what="health")
        assert "checks" not in server.get("/health").json()


# CORS


@pytest.mark.parametrize("path", ["/health", "/stats", "/nothing", "/broadcast", "/socket.io/?EIO=4&transport=polling"])
def test_an_allowed_origin_is_answered(shared_server: RunningServer, path: str) -> None:
    answer = shared_server.get(path, headers={"Origin": ALLOWED})
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert "Origin" in answer.headers["Vary"]


@pytest.mark.parametrize("path", ["/health", "/stats", "/nothing", "/broadcast", "/socket.io/?EIO=4&transport=polling"])
@pytest.mark.parametrize(
    "origin",
    [FOREIGN, "null", "http://app.example.com.evil.example", "https://app.example.com", "http://app.example.com:81"],
)
def test_another_origin_is_not(shared_server: RunningServer, path: str, origin: str) -> None:
    answer = shared_server.get(path, headers={"Origin": origin})
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_without_an_origin_there_are_no_cors_headers(shared_server: RunningServer) -> None:
    answer = shared_server.get("/health")
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert "Origin" in answer.headers["Vary"]  # caches must not give this answer to a browser that has one


@pytest.mark.parametrize("path", ["/broadcast", "/socket.io/?EIO=4&transport=polling"])
def test_a_preflight_of_an_allowed_origin_is_granted(shared_server: RunningServer, path: str) -> None:
    answer = shared_server.session.options(
        shared_server.url + path,
        headers={
            "Origin": ALLOWED,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
        timeout=10,
    )
    assert answer.status_code in (200, 204)
    assert answer.headers["Access-Control-Allow-Origin"] == ALLOWED
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    names = answer.headers["Access-Control-Allow-Headers"].lower()
    assert "authorization" in names
    assert "content-type" in names


@pytest.mark.parametrize("path", ["/users/1/notifications", "/broadcast", "/socket.io/?EIO=4&transport=polling"])
def test_a_preflight_allows_delete_and_the_headers_of_tracing(shared_server: RunningServer, path: str) -> None:
    answer = shared_server.session.options(
        shared_server.url + path,
        headers={
            "Origin": ALLOWED,
            "Access-Control-Request-Method": "DELETE",
            "Access-Control-Request-Headers": "authorization, traceparent, x-request-id, cookie",
        },
        timeout=10,
    )
    assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
    names = {name.strip() for name in answer.headers["Access-Control-Allow-Headers"].lower().split(",")}
    assert {"authorization", "traceparent", "x-request-id"} <= names
    assert "cookie" not in names


@pytest.mark.parametrize("path", ["/broadcast", "/socket.io/?EIO=4&transport=polling"])
def test_a_preflight_of_another_origin_is_not(shared_server: RunningServer, path: str) -> None:
    headers = {"Origin": FOREIGN, "Access-Control-Request-Method": "POST"}
    answer = shared_server.session.options(shared_server.url + path, headers=headers, timeout=10)
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_each_of_several_origins_is_answered_by_its_own_name(small_server: RunningServer) -> None:
    for origin in (ALLOWED, "https://other.example.com"):
        answer = small_server.get("/health", headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin


# Open servers


def test_api_keys_none_runs_open_and_warns(tmp_path: Any) -> None:
    with running(tmp_path, API_KEYS="none") as server:
        answer = server.post("/broadcast", json={"userIds": ["1"], "notification": {}})
        assert answer.status_code == 200
        [line] = [line for line in server.log().splitlines() if "API_KEYS=none" in line]
        assert line.startswith("[Server]")
        assert " warning " in line


def broadcast_as(server: RunningServer, headers: dict[str, str]) -> requests.Response:
    return server.post("/broadcast", json={"userIds": ["1"], "notification": {}}, headers=headers)


def test_development_without_keys_takes_calls_of_this_machine(development_server: RunningServer) -> None:
    assert broadcast_as(development_server, {}).status_code == 200
    assert broadcast_as(development_server, {"Host": f"localhost:{development_server.port}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"Forwarded": "for=127.0.0.1"},
        {"X-Real-IP": "127.0.0.1"},
        {"Host": "rebound.example.com"},
        {"Host": "localhost.evil.example.com"},
        {"Host": "127.0.0.1.evil.example.com:3001"},
        {"Host": ""},
    ],
    ids=str,
)
def test_development_without_keys_refuses_proxies_and_foreign_names(
    development_server: RunningServer, headers: dict[str, str]
) -> None:
    answer = broadcast_as(development_server, headers)
    assert answer.status_code in (400, 401)
    if answer.status_code == 401:
        assert_error(answer, 401, "Unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_development_says_how_to_get_a_token(development_server: RunningServer) -> None:
    assert "socket-server token" in development_server.log()
