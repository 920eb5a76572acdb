"""The REST API, word for word (contract, section 2)."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw
from tests.servers import API_KEY, RunningServer, mint, running

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


def test_stats_are_zero_while_nobody_is_connected(shared_server: RunningServer) -> None:
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
    "path", ["/nothing", "/broadcast/", "/health/", "/stats/x", "/../etc/passwd", "/%00", "/favicon.ico"]
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


def test_a_request_that_is_no_http_hurts_nobody(shared_server: RunningServer) -> None:
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
