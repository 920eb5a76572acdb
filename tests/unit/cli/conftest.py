"""Fixtures of the tests of the command line."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SECRET = "a-secret-of-enough-bytes-for-every-hash-0123456789"


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A secret, no API key, no .env file, and no server at PORT."""
    for name in (
        *("APP_ENV", "HOST", "API_KEYS", "JWT_PUBLIC_KEY", "JWT_JWKS_URL", "JWT_ALGORITHMS", "JWT_USER_CLAIM", "BASE_PATH"),
        *("SOCKET_SERVER_API_KEY", "SOCKET_SERVER_TOKEN"),
    ):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ENV_FILE": "", "JWT_SECRET": SECRET, "PORT": "9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@dataclass(frozen=True, slots=True)
class Received:
    """A request that the API has received."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Api:
    """An HTTP server on this machine. It answers 401 to the key "wrong" and `answer` to all other requests."""

    answer: bytes = b'{"success":true}'
    url: str = ""
    received: list[Received] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """The Authorization headers that were received."""
        return [request.headers.get("Authorization", "") for request in self.received]


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(content) if content else None
            made.received.append(Received(self.command, self.path, dict(self.headers), body))
            self.send_response(401 if self.headers.get("Authorization") == "Bearer wrong" else 200)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(made.answer)))
            self.end_headers()
            self.wfile.write(made.answer)

        do_GET = do_DELETE = do_CONNECT = do_POST  # noqa: N815 - the base class looks for these names

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
