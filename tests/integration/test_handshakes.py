"""Which handshakes a real server accepts: foreign pages, the server's own origin, and addresses behind proxies."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw
from tests.integration.protocol import TRANSPORTS, RawWebSocket
from tests.servers import BIN, PRODUCTION, RunningServer, free_port, mint, running, start, wait_for

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
FOREIGN = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


def status_of_handshake(server: RunningServer, transport: str, headers: Mapping[str, str], opens_raw: OpensRaw) -> int:
    if transport == "polling":
        return requests.get(server.url + HANDSHAKE, headers=dict(headers), timeout=10).status_code
    raw: RawWebSocket = opens_raw(server, headers=headers)
    return raw.status


# Web pages


@over_both
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_foreign_page_that_states_no_origin_is_refused(
    shared_server: RunningServer, opens_raw: OpensRaw, transport: str, site: str
) -> None:
    assert status_of_handshake(shared_server, transport, {"Sec-Fetch-Site": site}, opens_raw) == 403
    allowed = {"Sec-Fetch-Site": site, "Origin": PRODUCTION["CLIENT_URL"]}
    assert status_of_handshake(shared_server, transport, allowed, opens_raw) in (101, 200)


@over_both
@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin"}], ids=str)
def test_a_client_that_is_no_foreign_page_needs_no_origin(
    shared_server: RunningServer, opens_raw: OpensRaw, transport: str, headers: dict[str, str]
) -> None:
    assert status_of_handshake(shared_server, transport, headers, opens_raw) in (101, 200)


def test_a_foreign_page_does_not_use_up_the_connections_of_its_visitors_address(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, MAX_CONNECTIONS_PER_IP=2) as server:
        for _ in range(5):
            requests.get(server.url + HANDSHAKE, headers=FOREIGN, timeout=10)
        opens(server).sign_in({"token": mint("visitor")})


@over_both
@pytest.mark.parametrize("scheme", ["https", "wss"])
def test_the_servers_own_origin_over_tls_is_accepted(
    shared_server: RunningServer, opens_raw: OpensRaw, transport: str, scheme: str
) -> None:
    headers = {"Host": "push.example.com", "Origin": f"{scheme}://push.example.com"}
    assert status_of_handshake(shared_server, transport, headers, opens_raw) in (101, 200)
    forged = {"Host": "push.example.com", "Origin": "http://push.example.com"}
    assert status_of_handshake(shared_server, transport, forged, opens_raw) == 403


def test_configured_origins_may_be_wildcards_or_null(tmp_path: Path, opens_raw: OpensRaw) -> None:
    with running(tmp_path, CLIENT_URL="https://*.example.com") as server:
        for origin, status in (("https://a.b.example.com", 101), ("https://example.com", 403), ("null", 403)):
            assert status_of_handshake(server, "websocket", {"Origin": origin}, opens_raw) == status


def test_without_api_keys_pages_of_other_origins_cannot_call_the_api(tmp_path: Path) -> None:
    with running(tmp_path, API_KEYS="none") as server:
        port = server.port
        rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
        for headers, status in (
            ({}, 200),
            ({"Origin": PRODUCTION["CLIENT_URL"]}, 200),
            ({"Origin": "https://evil.example"}, 403),
            (rebound, 403),
            ({"Origin": "null"}, 403),
            (FOREIGN, 403),
        ):
            answer = server.post("/broadcast", json={"userIds": [], "notification": {}}, headers=headers)
            assert answer.status_code == status, headers
            answer = server.get("/users/1/notifications", headers=headers)
            assert answer.status_code == status, headers


def test_refused_handshakes_are_logged_with_their_origin_and_counted_if_they_are_many(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        session = requests.Session()
        for _ in range(40):
            session.get(server.url + HANDSHAKE, headers={"Origin": "https://evil.example"}, timeout=10)
        wait_for(lambda: "left_out=" in server.log(), what="the line with the number of lines left out")
        lines = [line for line in server.log().splitlines() if "refused handshake" in line]
        assert "https://evil.example" in lines[0]
        assert "status=403" in lines[0]
        assert len(lines) < 30


# Addresses


@pytest.fixture(scope="module")
def proxied_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server behind a trusted proxy on this machine, with few failed authentications allowed."""
    folder = tmp_path_factory.mktemp("proxied")
    with running(folder, TRUSTED_PROXIES="127.0.0.1", MAX_AUTH_FAILURES_PER_MINUTE=5) as server:
        yield server


def fail(server: RunningServer, opens: Opens, times: int, headers: Mapping[str, str]) -> None:
    for _ in range(times):
        client = opens(server, headers=headers)
        client.connect({"token": "bad"})
        client.refusal()


@pytest.mark.parametrize(
    ("hostile", "good"),
    [
        ("198.51.100.1:51234", "198.51.100.2:51234"),
        ("[2001:db8:1::1]:443", "[2001:db8:2::1]:443"),
        ("2001:db8:3::1", "2001:db8:4::1"),
    ],
)
def test_failures_of_one_client_behind_a_proxy_refuse_that_client_alone(
    proxied_server: RunningServer, opens: Opens, opens_raw: OpensRaw, hostile: str, good: str
) -> None:
    fail(proxied_server, opens, 5, {"X-Forwarded-For": hostile})
    assert opens_raw(proxied_server, headers={"X-Forwarded-For": hostile}).status == 429
    assert opens_raw(proxied_server, headers={"X-Forwarded-For": good}).status == 101


def test_failures_of_many_addresses_of_one_ipv6_network_count_together(
    proxied_server: RunningServer, opens: Opens, opens_raw: OpensRaw
) -> None:
    for number in range(5):
        fail(proxied_server, opens, 1, {"X-Forwarded-For": f"2001:db8:5::{number}"})
    assert opens_raw(proxied_server, headers={"X-Forwarded-For": "2001:DB8:5::ffff"}).status == 429


@pytest.mark.parametrize("unread", ["unknown", "_hidden", "nonsense", "fe80::1%" + "x" * 27_000])
def test_failures_of_clients_without_an_address_refuse_no_other(
    proxied_server: RunningServer, opens: Opens, opens_raw: OpensRaw, unread: str
) -> None:
    fail(proxied_server, opens, 7, {"X-Forwarded-For": unread})
    assert opens_raw(proxied_server, headers={"X-Forwarded-For": unread}).status == 101
    assert opens_raw(proxied_server, headers={"X-Forwarded-For": "198.51.100.99"}).status == 101


def test_a_forwarding_header_of_the_client_itself_is_no_way_around_the_limit(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, MAX_AUTH_FAILURES_PER_MINUTE=5) as server:
        for number in range(5):
            fail(server, opens, 1, {"X-Forwarded-For": f"198.51.100.{number}"})
        answer = requests.get(server.url + HANDSHAKE, headers={"X-Forwarded-For": "198.51.100.99"}, timeout=10)
        assert answer.status_code == 429


def over_unix_socket(path: Path, target: str, headers: Mapping[str, str]) -> bytes:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n".encode())
        answer = b""
        while data := sock.recv(65_536):
            answer += data
        return answer


@pytest.mark.parametrize("trusted", ["unix", ""])
def test_behind_a_unix_socket_clients_have_the_address_that_a_trusted_peer_states_or_none(
    tmp_path: Path, trusted: str
) -> None:
    path = tmp_path / "server.sock"
    settings = {**PRODUCTION, "INBOX_URL": f"sqlite:///{tmp_path}/inbox.db", "DRAIN_SECONDS": 0, "LOG_LEVEL": "info"}
    settings |= {"TRUSTED_PROXIES": trusted, "MAX_CONNECTIONS_PER_IP": 1}
    port = free_port()
    command = [str(BIN / "gunicorn"), "-b", f"unix:{path}", "-b", f"127.0.0.1:{port}", "wsgi:app"]
    server = start(tmp_path / "log", command, port, **settings)
    try:
        answers = [
            over_unix_socket(path, HANDSHAKE, {"X-Forwarded-For": address})
            for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1")
        ]
        statuses = [int(answer.split()[1]) for answer in answers]
        assert statuses == ([200, 200, 429] if trusted else [200, 200, 200])
    finally:
        server.stop()
        server.session.close()
