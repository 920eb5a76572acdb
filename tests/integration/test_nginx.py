"""The shipped nginx configuration, in front of a real server: TLS, WebSocket, long-polling, client addresses."""

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.conftest import Opens
from tests.integration.entry_points import receives
from tests.integration.protocol import RawWebSocket, client
from tests.nginx import NAME, running_nginx
from tests.servers import RunningServer, mint, running, wait_for

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


class Proxied:
    """nginx (front) and the server behind it."""

    def __init__(self, front: RunningServer, behind: RunningServer, http: int, folder: Path) -> None:
        self.front, self.behind, self.http, self.folder = front, behind, http, folder


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("nginx")
    with (
        running(folder, TRUSTED_PROXIES="127.0.0.1", PING_INTERVAL=0.4, PING_TIMEOUT=5) as behind,
        running_nginx(tool("nginx"), folder, [behind.port]) as nginx,
    ):
        yield Proxied(nginx.https, behind, nginx.http, folder)


def test_every_kind_of_connection_receives_through_nginx(proxied: Proxied, opens: Opens) -> None:
    receives(proxied.front, opens)


def test_rest_answers_keep_their_status(proxied: Proxied) -> None:
    front = proxied.front
    assert front.get("/health").json()["status"] == "healthy"
    assert front.broadcast(["7"], {"title": "שלום"}).json()["success"] is True
    refused = front.post("/broadcast", json={"userIds": [], "notification": {}})
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert front.get("/nothing").json()["error"] == "Not Found"
    assert front.get("/broadcast").status_code == 405


def test_a_body_above_the_limit_is_a_413_in_json(proxied: Proxied) -> None:
    answer = proxied.front.broadcast(["7"], {"data": "x" * 1_048_576})
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/json"
    assert set(answer.json()) == {"error", "message"}


def test_a_body_below_the_limit_is_accepted(proxied: Proxied) -> None:
    assert proxied.front.broadcast(["7"], {"data": "x" * 1_048_000}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/broadcast",
        "/broadcast/",
        "//broadcast",
        "/%62roadcast",
        "/broadcast/batch",
        "/users/1/connections",
        "//users/1/notifications",
    ],
)
def test_back_ends_conf_closes_every_spelling_of_the_api(
    path: str, tool: Callable[[str], str], tmp_path: Path, proxied: Proxied
) -> None:
    with running_nginx(tool("nginx"), tmp_path, [proxied.behind.port], {"#   deny all;": "deny all;"}) as closed:
        url = f"https://127.0.0.1:{closed.https.port}{path}"
        for headers in ({}, {"Idempotency-Key": "1"}):
            assert closed.https.session.post(url, json={}, headers=headers, timeout=10).status_code == 403
        assert closed.https.get("/health").status_code == 200


def test_plain_http_is_redirected_to_https(proxied: Proxied) -> None:
    answer = requests.get(
        f"http://127.0.0.1:{proxied.http}/stats?x=1", headers={"Host": NAME}, allow_redirects=False, timeout=10
    )
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"https://{NAME}/stats?x=1"


def test_tls_is_1_2_or_later(proxied: Proxied) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", proxied.front.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as tls,
    ):
        assert tls.version() in ("TLSv1.2", "TLSv1.3")


def test_origins_are_checked_behind_nginx(proxied: Proxied) -> None:
    url = f"{proxied.front.url}/socket.io/?EIO=4&transport=polling"
    for origin, status in (("http://evil.example.com", 403), ("http://app.example.com", 200)):
        assert proxied.front.session.get(url, headers={"Origin": origin}, timeout=10).status_code == status


def from_address(proxied: Proxied, address: str, headers: dict[str, str]) -> RawWebSocket:
    """Open a WebSocket from another address of this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", proxied.front.port), timeout=10, source_address=(address, 0))
    sock = context.wrap_socket(plain, server_hostname=NAME)
    return RawWebSocket(proxied.front.port, sock=sock, headers={"Host": NAME} | headers)


@pytest.mark.parametrize("forged", [{}, {"X-Forwarded-For": "203.0.113.9"}, {"Forwarded": "for=203.0.113.9"}])
def test_the_log_has_the_clients_address(proxied: Proxied, forged: dict[str, str]) -> None:
    before = len(proxied.behind.log())
    with from_address(proxied, "127.0.0.2", forged) as raw:
        assert raw.status == 101
        raw.sign_in(mint("ada"))
        log = proxied.behind.log()[before:]
        assert "address=127.0.0.2" in log
        assert "203.0.113.9" not in log


def test_a_connection_outlives_several_heartbeats(proxied: Proxied) -> None:
    for transport in ("websocket", "polling"):
        with client(proxied.front, transport) as opened:
            opened.answers_pings = False
            opened.sign_in({"token": mint("ada")})
            for _ in range(2):
                assert opened.receive() == "2"
                opened.send("3")


def test_the_server_notices_a_close_through_nginx(proxied: Proxied) -> None:
    for transport in ("websocket", "polling"):
        opened = client(proxied.front, transport)
        opened.sign_in({"token": mint("leaver")})
        opened.close()
        proxied.behind.wait_for_connections(0)
    raw = from_address(proxied, "127.0.0.2", {})
    raw.sign_in(mint("leaver"))
    raw.sock.close()
    proxied.behind.wait_for_connections(0)


def test_the_access_log_contains_no_session_id_and_no_token(proxied: Proxied) -> None:
    token = mint("ada")
    headers: dict[str, Any] = {
        "Authorization": f"Bearer {token}",
        "Cookie": f"jwt={token}; id=ada",
        "Referer": f"https://x/?t={token}",
    }
    with client(proxied.front, "polling", headers=headers, query=f"&token={token}") as opened:
        opened.connect()
        opened.event()
        sid = opened.handshake["sid"]
    log_file = proxied.folder / "socket-server.access.log"
    wait_for(lambda: "/socket.io/" in log_file.read_text(), what="the access log")
    time.sleep(0.1)
    log = log_file.read_text()
    assert sid not in log
    assert token not in log
