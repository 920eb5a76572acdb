"""No secret, token, key or cookie is logged at any level, and no client can forge a log line (docs/protocol.md)."""

import contextlib
import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.integration.protocol import TRANSPORTS, Client, PollingClient, RawWebSocket, client
from tests.servers import API_KEY, SECRET, RunningServer, free_port, mint, running

OLD_SECRET = "an-older-secret-for-tests-that-is-long-9876543210"
BAD_KEY = "a-key-with-a-typing-mistake-13579"
COOKIE = "cookie-of-another-application-24680"
BODY = "the-body-of-a-notification-97531"
PREFIXES = ("[Socket.IO] ", "[SessionManager] ", "[Broadcast] ", "[Server] ")


class Traffic:
    """Requests of all kinds, and the secrets that were in them."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.secrets = [SECRET, OLD_SECRET, API_KEY, BAD_KEY, COOKIE, BODY]
        self._serial = 0

    def token(self, make: Callable[..., str] = mint, **claims: object) -> str:
        """Return a token of one request only."""
        self._serial += 1
        token = make("ada", serial=self._serial, **claims)
        self.secrets += token.split(".")[1:]  # the header is the same for all
        return token

    def raw_http(self, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as sock:
            sock.sendall(data)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
                sock.recv(65_536)

    def sign_ins(self, transport: str) -> None:
        """Sign in with good and bad tokens in every place."""
        tokens = [
            self.token(),
            self.token(lifetime_s=-600),
            self.token(secret="a-secret-of-another-server-that-is-long-0123"),
            self.token() + "x",
            "x" + self.token(),
            self.token()[:-20],
            self.token().replace(".", " "),
        ]
        cookies = {"Cookie": f"session={COOKIE}"}
        for token in tokens:
            places: list[tuple[dict[str, str], object, object]] = [
                (cookies, {"token": token}, None),
                (cookies, {"token": f"Bearer {token}", "userId": "ben"}, None),
                (cookies, {"token": [token]}, None),
                ({"Cookie": f"jwt={token}; id=ada; session={COOKIE}"}, None, None),
                ({"Cookie": f"jwt=bearer%20{token}; session={COOKIE}"}, None, None),
                ({"Authorization": f"Bearer {token}"} | cookies, None, None),
                ({"Authorization": f"Token {token}"} | cookies, None, {"userId": "ada", "jwt": token}),
                (cookies, None, {"userId": token, "jwt": token}),
            ]
            for headers, auth, event in places:
                with client(self.server, transport, headers=headers) as opened:
                    opened.connect(auth)
                    if event is not None:
                        opened.emit("auth", event)
                        assert str(opened.receive()).startswith('42["auth_')

    def malformed(self, transport: str) -> None:
        """Send malformed packets with tokens in them."""
        for packet in (
            '40{"token":"%s"',
            '40["%s"]',
            "40%s",
            '42["auth",{"jwt":"%s"}',
            '42["auth","%s"]]',
            '42{"jwt":"%s"}',
            "4%s",
            "%s",
            '451-["auth",{"_placeholder":true,"num":"%s"}]',
            '42/%s,["auth"]',
            '40/%s,{"token":"x"}',
            '42["%s"]',
            '430["%s"]',
        ):
            with client(self.server, transport) as opened:
                if not packet.startswith("40"):
                    opened.connect()
                self._send_badly(opened, packet % self.token())

    def _send_badly(self, opened: Client, packet: str) -> None:
        opened.send(packet)
        if isinstance(opened, PollingClient):
            opened.post(b"\xff" + self.token().encode())
        else:
            opened.send(self.token().encode())  # binary
        opened.send('42["ping"]')
        opened.receive()

    def frames(self) -> None:
        with RawWebSocket(self.server.port) as raw:
            raw.sock.sendall(self.token().encode())  # not a frame
            raw.close_code()

    def addresses(self) -> None:
        """Send tokens in request lines and in headers of other purposes."""
        for path in (
            "/socket.io/?EIO=4&transport=polling&token={}",
            "/socket.io/?EIO=3&transport=polling&token={}",
            "/socket.io/?EIO=4&transport={}",
            "/socket.io/?EIO=4&transport=polling&sid={}",
            "/nothing/{}",
            "/health?token={}",
            "/broadcast?token={}",
        ):
            requests.get(self.server.url + path.format(self.token()), timeout=10)
            requests.post(self.server.url + path.format(self.token()), data="{}", timeout=10)
        requests.get(f"{self.server.url}/health?key={API_KEY}&jwt=bearer%20{self.token()}", timeout=10)
        headers = {name: self.token() for name in ("Origin", "User-Agent", "X-Forwarded-For", "Referer", "X-Token")}
        for name, value in headers.items():
            requests.get(f"{self.server.url}/socket.io/?EIO=4&transport=polling", headers={name: value}, timeout=10)
            requests.get(f"{self.server.url}/health", headers={name: value}, timeout=10)
        self.raw_http(f"GET /health?{self.token()}\r\n\r\n".encode())
        self.raw_http(f"{self.token()} / HTTP/1.1\r\n\r\n".encode())
        self.raw_http(f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {self.token()}\r\n\r\n".encode())
        self.raw_http(f"GET / HTTP/{self.token()}\r\nHost: x\r\n\r\n".encode())

    def api_calls(self) -> None:
        good = json.dumps({"userIds": ["ada"], "notification": {"title": BODY, "data": {"jwt": self.token()}}})
        bad = [
            good[:-5],
            good.replace('"title": "', '"title": 5, "x": "'),
            "[]",
            good.replace('["ada"]', f'[["{self.token()}"]]'),
        ]
        for authorization in (
            f"Bearer {API_KEY}",
            f"Bearer {BAD_KEY}",
            f"Basic {API_KEY}",
            API_KEY,
            f"Bearer {self.token()}",
        ):
            for body in [good, *bad]:
                for content_type in ("application/json", "text/plain"):
                    headers = {"Authorization": authorization, "Content-Type": content_type, "Cookie": f"s={COOKIE}"}
                    self.server.post("/broadcast", data=body, headers=headers)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_holds_no_secret(tmp_path: Path, log_format: str) -> None:
    with running(
        tmp_path,
        LOG_LEVEL="debug",
        LOG_FORMAT=log_format,
        JWT_SECRET=f"{SECRET},{OLD_SECRET}",
        MAX_AUTH_FAILURES_PER_MINUTE=100_000,
    ) as server:
        traffic = Traffic(server)
        for transport in TRANSPORTS:
            traffic.sign_ins(transport)
            traffic.malformed(transport)
        traffic.frames()
        traffic.addresses()
        with client(server) as listener:
            listener.sign_in({"token": traffic.token()})
            traffic.api_calls()
        server.wait_for_connections(0)
        assert server.stop() == 0
    log = server.log()
    assert " debug " in log.replace('"level": "debug"', " debug ")
    for prefix in PREFIXES:
        assert prefix.strip() in log
    for code in ("expired_token", "invalid_token", "invalid_format", "user_mismatch", "missing_credentials"):
        assert f"code={code}" in log
    if log_format == "json":
        for record in map(json.loads, log.splitlines()):
            assert f"{record['prefix']} " in PREFIXES
            assert set(record) == {"prefix", "time", "level", "message"}
    found = [secret for secret in traffic.secrets if secret and secret in log]
    assert found == []


def test_an_unreachable_key_set_is_logged_without_the_token(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/jwks.json"
    with running(tmp_path, LOG_LEVEL="debug", JWT_SECRET="", JWT_JWKS_URL=url) as server:
        token = mint("ada").split(".")[1:]
        header = "eyJhbGciOiJSUzI1NiIsImtpZCI6InNvbWV0aGluZyJ9"  # {"alg":"RS256","kid":"something"}
        with client(server) as opened:
            opened.connect({"token": ".".join([header, *token])})
            assert opened.rest() == []  # the transport is closed: the token is neither valid nor invalid
        assert "the JWK Set could not be fetched" in server.log()
        assert not [part for part in token if part in server.log()]


# The form of a line


def test_every_line_starts_with_its_prefix_and_clients_cannot_forge_one(tmp_path: Path) -> None:
    with running(tmp_path, LOG_LEVEL="debug") as server:
        with client(server, headers={"User-Agent": "agent"}) as opened:
            opened.sign_in({"token": mint("eve\n[Server] forged\r\nforged")})
            server.broadcast(["eve\n[Server] forged\r\nforged"], {"title": "x"})
            opened.event()
        with client(server) as opened:
            opened.connect()
            opened.send("4x\n[Server] forged")
            assert opened.receive() is None
        server.wait_for_connections(0)
        assert server.stop() == 0
    lines = server.log().splitlines()
    assert lines
    assert [line for line in lines if not line.startswith(PREFIXES)] == []
    assert [line for line in lines if line.startswith(("[Server] forged", "forged"))] == []
    assert any("user=eve" in line for line in lines)


def test_deliveries_are_logged_at_debug_only_and_connections_at_info(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        with client(server) as opened:
            opened.sign_in({"token": mint("ada")})
            for _ in range(5):
                server.broadcast(["ada"], {"title": BODY})
        server.wait_for_connections(0)
        log = server.log()
    assert "[Broadcast]" not in log
    for needed in ("[Socket.IO]", "[SessionManager]", "user=ada", "disconnected", "address=127.0.0.1"):
        assert needed in log
