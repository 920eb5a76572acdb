"""The HTTP layer of a real server: paths, encodings, errors, and time limits."""

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.servers import API_KEY, BIN, PRODUCTION, RunningServer, finish, free_port, running

ORIGIN = PRODUCTION["CLIENT_URL"]
BROADCAST = json.dumps({"userIds": ["1"], "notification": {"title": "שלום"}}).encode()
JSON = {"Content-Type": "application/json", "Authorization": f"Bearer {API_KEY}"}


def read_all(sock: socket.socket) -> bytes:
    """Return everything up to the end of the stream, or to a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65_536):
            received += data
    return received


def ask(
    server: RunningServer, target: str, method: str = "GET", body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send one request as it is written, and return status, headers and body. requests would normalize the target."""
    lines = {"Host": "x", "Connection": "close", "Content-Length": str(len(body)), **JSON, **(headers or {})}
    head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has read everything
            sock.sendall(head.encode() + body)
        return parse(read_all(sock))


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    return int(status_line.split()[1]), dict(line.split(": ", 1) for line in lines), body


# Paths


@pytest.mark.parametrize(
    "target",
    [
        *("//stats", "///stats", "/stats//", "/stats/", "/./stats", "/stats/.", "/x/../stats", "/socket.io/../stats"),
        *("/%2e/stats", "/%2E/stats", "/x/%2e%2e/stats", "/x/.%2e/stats", "/%2e%2e/stats"),
        *("/stat%73", "/%73tats", "/stats%2F", "/stats%2f", "/%2Fstats", "%2Fstats", "/stats%00", "/stats%20"),
        *("/stats;a=b", "/;/stats", "/stats#x", "/\\stats", "\\stats", "/x\\..\\stats", "/stats%3F"),
        *("http://127.0.0.1/stats", "http://127.0.0.1//stats", "//127.0.0.1/stats", "stats", "*"),
        *("/STATS", "/users/7%2Fnotifications", "/users%2F7/notifications", "/users/a/b/notifications"),
        *("/users//notifications", "/users/./notifications", "/users/../notifications", "/users/%FF/notifications"),
        *(
            "/socket%2Eio/?EIO=4&transport=polling",
            "/socket.io//?EIO=4&transport=polling",
            "//socket.io/?EIO=4&transport=polling",
        ),
    ],
)
def test_a_path_that_is_not_in_normal_form_reaches_no_route(shared_server: RunningServer, target: str) -> None:
    status, _, body = ask(shared_server, target)
    assert status in (400, 404), body
    assert b"totalConnections" not in body
    assert set(json.loads(body)) == {"error", "message"}


@pytest.mark.parametrize(
    "target",
    [
        "//broadcast",
        "/broadcast//",
        "/./broadcast",
        "/broadcas%74",
        "/broadcast%2Fbatch",
        "/broadcast/%62atch",
        "http://x/broadcast",
    ],
)
def test_a_broadcast_to_a_path_that_is_not_in_normal_form_is_404(shared_server: RunningServer, target: str) -> None:
    status, _, body = ask(shared_server, target, "POST", BROADCAST)
    assert (status, json.loads(body)["error"]) == (404, "Not Found")


def test_broadcast_answers_with_a_slash_at_its_end(shared_server: RunningServer) -> None:
    answer = shared_server.post("/broadcast/", data=BROADCAST, headers=JSON, allow_redirects=False)
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    batch = json.dumps({"broadcasts": [json.loads(BROADCAST)]})
    answer = shared_server.post("/broadcast/batch/", data=batch, headers=JSON, allow_redirects=False)
    assert answer.json()["results"][0]["success"] is True
    assert shared_server.post("/broadcast/", data=BROADCAST).status_code == 401
    assert shared_server.get("/broadcast/").status_code == 405


@pytest.mark.parametrize("user_id", [".", "..", "a/b", "/", "//", "..%2F", "ש", "a;b", "a b"])
def test_every_user_id_can_be_a_segment_percent_encoded(shared_server: RunningServer, user_id: str) -> None:
    notification = {"title": f"for {user_id}"}
    assert shared_server.broadcast([user_id], notification).status_code == 200
    escaped = "".join(f"%{byte:02X}" for byte in user_id.encode())
    status, _, body = ask(shared_server, f"/users/{escaped}/notifications")
    assert status == 200
    assert json.loads(body)["notifications"][-1]["notification"] == notification
    assert ask(shared_server, f"/users/{escaped.lower()}/notifications")[0] == 200


# Bodies


def test_a_gzip_body_is_decoded(shared_server: RunningServer) -> None:
    encoded = gzip.compress(BROADCAST)
    answer = shared_server.post("/broadcast", data=encoded, headers={**JSON, "Content-Encoding": "gzip"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["requestedUsers"] == 1
    chunked = iter([encoded[:5], encoded[5:]])
    answer = shared_server.post("/broadcast", data=chunked, headers={**JSON, "Content-Encoding": "gzip"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(bytes(100_000_000)), 413),
        (gzip.compress(b" " * 1_048_577), 413),
        (gzip.compress(BROADCAST) + b"x", 400),
        (gzip.compress(BROADCAST) * 2, 400),
        (gzip.compress(BROADCAST)[:-3], 400),
        (BROADCAST, 400),
    ],
    ids=["bomb", "too large", "garbage behind", "two members", "truncated", "not gzip"],
)
def test_a_bad_gzip_body_is_refused(shared_server: RunningServer, body: bytes, status: int) -> None:
    answer, _, content = ask(shared_server, "/broadcast", "POST", body, {"Content-Encoding": "gzip"})
    assert answer == status
    assert set(json.loads(content)) == {"error", "message"}


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "compress"])
def test_another_encoding_is_415_and_says_which_is_accepted(shared_server: RunningServer, coding: str) -> None:
    answer = shared_server.post("/broadcast", data=BROADCAST, headers={**JSON, "Content-Encoding": coding})
    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "gzip")


def test_a_body_of_tiny_chunks_is_413(shared_server: RunningServer) -> None:
    head = {"Transfer-Encoding": "chunked", "Content-Length": ""}
    head_text = "".join(f"{name}: {value}\r\n" for name, value in {**JSON, **head}.items() if value)
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as sock:
        sock.sendall(f"POST /broadcast HTTP/1.1\r\nHost: x\r\n{head_text}\r\n".encode())
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(50):
                sock.sendall(b"1\r\nx\r\n" * 1_000)
        assert parse(read_all(sock))[0] == 413


# Errors

LARGE_HEAD = {"Cookie": "a=" + "x" * 40_000}


@pytest.mark.parametrize(
    ("target", "method", "body", "headers", "status"),
    [
        ("/health", "GET", b"", LARGE_HEAD, 431),
        ("/broadcast", "POST", b"x" * 1_100_000, {}, 413),
        ("/users/7/connections", "POST", b"x" * 100_000, {}, 413),
        ("/socket.io/?EIO=4&transport=polling&sid=x", "POST", b"x" * 100_000, {}, 413),
        ("//health", "GET", b"", {}, 404),
        ("/broadcast", "POST", b"x", {"Content-Encoding": "br"}, 415),
        ("/broadcast", "POST", b"x", {"Content-Encoding": "gzip"}, 400),
        ("/health", "GET", b"", {"Content Type": "x"}, 400),
    ],
)
def test_errors_of_the_http_layer_have_cors_headers(
    shared_server: RunningServer, target: str, method: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    for origin, allowed in ((ORIGIN, ORIGIN), ("http://evil.example.com", None)):
        answer, found, _ = ask(shared_server, target, method, body, {"Origin": origin, "X": "y", **headers})
        assert answer == status
        assert found.get("Access-Control-Allow-Origin") == allowed
        assert found["Vary"] == "Origin"


# Time limits


@pytest.fixture(scope="module")
def hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("hasty"), AUTH_TIMEOUT=1) as server:
        yield server


UPGRADE = b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upg"


@pytest.mark.parametrize("sent", [b"", b"G", UPGRADE], ids=["nothing", "a byte", "half an upgrade"])
def test_half_a_head_is_cut_after_auth_timeout(hasty_server: RunningServer, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", hasty_server.port), timeout=10) as sock:
        started = time.monotonic()
        sock.sendall(sent)
        answer = read_all(sock)
    assert time.monotonic() - started < 3
    assert answer[:12] == (b"HTTP/1.1 408" if sent else b"")


def test_a_head_that_trickles_in_is_cut_after_auth_timeout(hasty_server: RunningServer) -> None:
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", hasty_server.port), timeout=0.1) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nX: ")
        with contextlib.suppress(OSError):
            while time.monotonic() - started < 8:
                sock.sendall(b"x")
                with contextlib.suppress(TimeoutError):
                    if not sock.recv(1_000):
                        break
    assert time.monotonic() - started < 3


def test_a_request_that_is_not_complete_in_time_is_a_408_with_cors_headers(hasty_server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", hasty_server.port), timeout=20) as sock:
        sock.sendall(f"GET /health HTTP/1.1\r\nHost: x\r\nOrigin: {ORIGIN}\r\nX: y\r\nX-Half: ".encode())
        status, headers, body = parse(read_all(sock))
    assert (status, headers["Access-Control-Allow-Origin"]) == (408, ORIGIN)
    assert json.loads(body)["error"] == "Request Timeout"


def test_an_idle_connection_outlives_auth_timeout(hasty_server: RunningServer) -> None:
    with requests.Session() as session:
        session.get(hasty_server.url + "/health/live", timeout=5)
        time.sleep(2)  # longer than AUTH_TIMEOUT
        answer = session.get(hasty_server.url + "/health/live", timeout=5)
    assert answer.ok
    assert "Traceback" not in hasty_server.log()


GUNICORN = [str(BIN / "gunicorn"), "wsgi:app"]


def refused_start(*arguments: str, **settings: Any) -> str:
    """Start a server that must refuse to start, at once and with one message. Return what it printed."""
    started = time.monotonic()
    status, output, errors = finish([*GUNICORN, *arguments], **{**PRODUCTION, "PORT": free_port(), **settings})
    message = output + errors
    assert time.monotonic() - started < 4
    assert status == 2, message
    assert message.count("cannot start") == 1
    assert "Traceback" not in message
    return message


def test_a_busy_port_is_one_message() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refused_start(PORT=port)
        assert f"  - PORT is {port}, " in message
        assert message.count(str(port)) == 1
        assert "--bind" in refused_start("-b", f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "host", ["198.51.100.7", "2001:db8::1", "no-such-host.invalid", "[::1]", "127.0.0.1:80", "1.2.3", "a b", "http://x"]
)
def test_a_host_that_cannot_be_used_is_one_message(host: str) -> None:
    message = refused_start(HOST=host)
    assert message.count("  - HOST is ") == message.count("  - ") == 1
    assert host in message


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--max-requests", "1000"], ["--max-requests-jitter", "50"], ["--limit-request-line", "100"]),
        *(["--limit-request-fields", "5"], ["--limit-request-field_size", "50"], ["--threads", "4"], ["--reuse-port"]),
        *(["--forwarded-allow-ips", "*"], ["--log-level", "debug"], ["--error-logfile", "/tmp/x"], ["--log-syslog"]),
        *(["--statsd-host", "localhost:1"], ["--graceful-timeout", "1"]),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_gunicorn_option_without_effect_is_refused_by_name(arguments: list[str]) -> None:
    assert arguments[0] in refused_start(*arguments)
    assert arguments[0] in refused_start(GUNICORN_CMD_ARGS=" ".join(arguments))
