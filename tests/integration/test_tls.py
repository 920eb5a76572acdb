"""Every transport over TLS in this process."""

import socket
import ssl
from collections.abc import Iterator

import pytest

from tests.integration.certificates import self_signed
from tests.integration.conftest import Opens, polling, upgrade
from tests.integration.protocol import (
    TEXT,
    TRANSPORTS,
    RawWebSocket,
    encode_frame,
)
from tests.servers import RunningServer, mint, running, wait_for

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = self_signed(folder)
    with running(folder, SSL_CERT=certificate, SSL_KEY=key, PING_INTERVAL=0.5, PING_TIMEOUT=5) as server:
        yield server


unverified = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@unverified
def test_rest_over_tls(tls_server: RunningServer) -> None:
    assert tls_server.url.startswith("https://")
    assert tls_server.get("/health").json()["status"] == "healthy"
    assert tls_server.broadcast(["absent"], {"title": "x"}).json()["success"]


@unverified
@over_both
def test_connections_over_tls(tls_server: RunningServer, opens: Opens, transport: str) -> None:
    user, text = f"tls-{transport}", "ש" * 100_000
    client = opens(tls_server, transport)
    client.sign_in({"token": mint(user)})
    assert tls_server.broadcast([user], {"body": text}).json()["totalSockets"] == 1
    assert client.event()[1] == {"body": text}
    client.emit("ping", "x" * 60_000)  # several TLS records
    assert client.event() == ["pong", None]
    client.answers_pings = False
    for _ in range(2):
        assert client.receive() == "2"
        client.send("3")
    client.close()
    wait_for(lambda: tls_server.broadcast([user], {}).json()["totalSockets"] == 0, 5, "the end of the connection")


@unverified
def test_an_upgrade_over_tls(tls_server: RunningServer, opens: Opens) -> None:
    old = polling(tls_server, opens)
    old.sign_in({"token": mint("tls-mover")})
    new = upgrade(tls_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    new.send("5")
    assert tls_server.broadcast(["tls-mover"], {"n": 1}).json()["totalSockets"] == 1
    assert new.event()[1] == {"n": 1}


@unverified
def test_bytes_right_behind_the_upgrade_request_are_not_lost_over_tls(tls_server: RunningServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = socket.create_connection(("127.0.0.1", tls_server.port), timeout=10)
    behind = encode_frame(TEXT, b"40") + encode_frame(TEXT, b'42["ping"]')
    with RawWebSocket(tls_server.port, sock=context.wrap_socket(plain), behind=behind) as raw:
        assert raw.text().startswith("0{")
        assert raw.text().startswith("40{")
        assert raw.text() == '42["pong",null]'


@unverified
def test_plain_http_on_the_tls_port_is_refused(tls_server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", tls_server.port), timeout=10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises((ConnectionError, AssertionError)):
            assert sock.recv(100)
    assert tls_server.get("/health").status_code == 200
