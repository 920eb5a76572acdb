"""Each error of the REST API that a request can provoke is answered as docs/rest-api.md says."""

import re
from typing import Any

import pytest

from tests.documents.markdown import code_words, page
from tests.servers import RunningServer

DOCUMENTED = {
    (int(row.cells[0]), error)
    for row in page("docs/rest-api.md").rows()
    if row.section == "Errors"
    for error in code_words(row.cells[1])
}
# They need a fault, a race, another setting, many requests or much time.
ELSEWHERE = {
    (403, "Forbidden"),
    (408, "Request Timeout"),
    (409, "A request with this Idempotency-Key is under way"),
    (429, "Too Many Requests"),
    (500, "Internal Server Error"),
    (503, "Service Unavailable"),
}


def broadcast(body: Any = None, **members: Any) -> dict[str, Any]:
    content = {"userIds": ["1"], "notification": {}, **members} if body is None else body
    return {"method": "POST", "path": "/broadcast", "json": content}


def raw(body: str, path: str = "/broadcast", **headers: str) -> dict[str, Any]:
    return {"method": "POST", "path": path, "data": body, "headers": {"Content-Type": "application/json", **headers}}


def get(path: str, **headers: str) -> dict[str, Any]:
    return {"method": "GET", "path": path, "headers": headers}


CASES: list[tuple[int, str, dict[str, Any]]] = [
    (400, "Invalid request", raw("{")),
    (400, "Invalid request", raw('{"userIds": [], "notification": {"a": NaN}}')),
    (400, "Invalid request", raw("[" * 100_000)),
    (400, "userIds must be an array", broadcast({"notification": {}})),
    (400, "userIds must be an array", broadcast([])),
    (400, "userIds[1] must be a string", broadcast(userIds=["1", None])),
    (400, "userIds[1] must …", broadcast(userIds=["1", ""])),
    (400, "userIds[1] must …", broadcast(userIds=["1", "x" * 257])),
    (400, "userIds[1] must …", raw(r'{"userIds": ["1", "\ud800"], "notification": {}}')),
    (400, "notification is required", broadcast({"userIds": ["1"]})),
    (
        400,
        "notification.title must be a string or an object of language to string",
        broadcast(notification={"title": None}),
    ),
    (400, "notification.title.he must be a string", broadcast(notification={"title": {"he": 1}})),
    (400, "notification.metadata must be an object", broadcast(notification={"metadata": []})),
    (
        400,
        "notification.metadata.priority must be low, normal or high",
        broadcast(notification={"metadata": {"priority": "urgent"}}),
    ),
    (400, "ttl must be a number of seconds from 0 to 9007199254740992", broadcast(ttl=-1)),
    (
        400,
        "Idempotency-Key must be 1 to 255 printable characters",
        raw('{"userIds": [], "notification": {}}', **{"Idempotency-Key": "k" * 256}),
    ),
    (400, "broadcasts must be an array", raw("{}", "/broadcast/batch")),
    (400, "after must be an offset", get("/users/1/notifications?after=-1")),
    (400, "after must be an offset", get("/users/1/notifications?after=" + "1" * 20)),
    (400, "limit must be a whole number from 1 to 1000", get("/users/1/notifications?limit=1001")),
    (400, "the user id in the path must be at most 256 bytes", get(f"/users/{'x' * 257}/notifications")),
    (400, "Bad Request", get("/health", **{"Content-Length": "1", "Transfer-Encoding": "chunked"})),
    (401, "Unauthorized", get("/users/1/connections", Authorization="Bearer another")),
    (401, "Unauthorized", get("/users/1/connections", Authorization="")),
    (404, "Not Found", get("/nothing")),
    (404, "Not Found", get("//stats")),
    (404, "Not Found", get("/stats/")),
    (405, "Method Not Allowed", get("/broadcast")),
    (413, "Too many users", broadcast(userIds=["1"] * 10_001)),
    (413, "Too many broadcasts", {"method": "POST", "path": "/broadcast/batch", "json": {"broadcasts": [{}] * 1_001}}),
    (413, "Request Entity Too Large", raw(" " * 1_048_577)),
    (413, "Request Entity Too Large", raw(" " * 65_537, "/health")),
    (415, "Unsupported Media Type", raw("{}", **{"Content-Type": "text/plain"})),
    (415, "Unsupported Media Type", raw("{}", **{"Content-Encoding": "br"})),
    (
        422,
        "Idempotency-Key was used for another request",
        raw('{"userIds": [], "notification": {}}', **{"Idempotency-Key": "k"}),
    ),
    (431, "Request Header Fields Too Large", get("/health", **{"X-Long": "x" * 32_769})),
]


@pytest.mark.parametrize(("status", "error", "request_"), CASES, ids=lambda case: str(case)[:40])
def test_the_error_is_the_documented_one(
    status: int, error: str, request_: dict[str, Any], shared_server: RunningServer
) -> None:
    if status == 422:
        call(shared_server, raw('{"userIds": ["2"], "notification": {}}', **{"Idempotency-Key": "k"}))
    answer = call(shared_server, request_)
    assert answer.status_code == status
    assert re.fullmatch(re.escape(error).replace("…", ".+"), answer.json()["error"])
    assert answer.json()["message"]
    wanted = {401: "WWW-Authenticate", 405: "Allow"}
    if "Content-Encoding" in request_.get("headers", {}):
        wanted[415] = "Accept-Encoding"
    assert status not in wanted or wanted[status] in answer.headers


def call(server: RunningServer, request_: dict[str, Any]) -> Any:
    options = dict(request_)
    headers = {**server.api_headers, **options.pop("headers", {})}
    return server.session.request(options.pop("method"), server.url + options.pop("path"), headers=headers, **options)


def test_every_error_is_provoked_here_or_elsewhere() -> None:
    assert {(status, error) for status, error, _ in CASES} == DOCUMENTED - ELSEWHERE
