"""gunicorn's --proxy-protocol: a load balancer tells the client's address."""

import contextlib
import json
import re
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.certificates import self_signed
from tests.integration.protocol import RawWebSocket
from tests.servers import RunningServer, mint, running
from tests.workers import several_workers

V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 51234 3001\r\n"
V1_IPV6 = b"PROXY TCP6 2001:db8:1:2::9 ::1 51234 3001\r\n"
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V2_ADDRESSES = socket.inet_aton("203.0.113.9") + socket.inet_aton("127.0.0.1") + struct.pack("!HH", 51_234, 3_001)
V2 = V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x11, len(V2_ADDRESSES) + 7) + V2_ADDRESSES + b"\x03\x00\x04abcd"
V2_LOCAL = V2_SIGNATURE + struct.pack("!BBH", 0x20, 0, 0)
UNKNOWN = b"PROXY UNKNOWN\r\n"
REQUEST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("proxied")
    with running(folder, GUNICORN_CMD_ARGS="--proxy-protocol", TRUSTED_PROXIES="198.51.100.1", AUTH_TIMEOUT=2) as server:
        yield server


def connect(server: RunningServer, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10, source_address=(source, 0))


def read_all(sock: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65_536):
            received += data
    return received


def address_in_log(server: RunningServer, sock: socket.socket, headers: dict[str, str] | None = None) -> str:
    """Open a WebSocket on a connection. Return the address that the server logs for it."""
    before = len(server.log())
    with RawWebSocket(server.port, sock=sock, headers=headers) as raw:
        raw.sign_in(mint("ada"))
        (address,) = set(re.findall(r"address=(\S+)", server.log()[before:]))
    return str(address)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, "203.0.113.9"),
        (V1_IPV6, "2001:db8:1:2::9"),
        (V2, "203.0.113.9"),
        (V2_LOCAL, "127.0.0.1"),
        (b"", "127.0.0.1"),
    ],
    ids=["v1", "v1 IPv6", "v2", "v2 LOCAL", "none"],
)
def test_the_client_has_the_address_of_the_header(proxied: RunningServer, header: bytes, address: str) -> None:
    with connect(proxied) as sock:
        sock.sendall(header)
        assert address_in_log(proxied, sock) == address


def test_x_forwarded_for_is_believed_if_the_address_of_the_header_is_a_trusted_proxy(proxied: RunningServer) -> None:
    with connect(proxied) as sock:
        sock.sendall(b"PROXY TCP4 198.51.100.1 127.0.0.1 51234 3001\r\n")
        assert address_in_log(proxied, sock, {"X-Forwarded-For": "198.51.100.4"}) == "198.51.100.4"
    with connect(proxied) as sock:
        sock.sendall(V1_IPV6)
        assert address_in_log(proxied, sock, {"X-Forwarded-For": "198.51.100.4"}) == "2001:db8:1:2::9"


@pytest.mark.parametrize("header", [V1, V2, UNKNOWN, V2_LOCAL])
@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_header_may_come_in_pieces_and_with_the_request(proxied: RunningServer, header: bytes, size: int) -> None:
    data = header + REQUEST
    with connect(proxied) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), size):
            sock.sendall(data[at : at + size])
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


def test_a_post_is_not_taken_for_half_a_header(proxied: RunningServer) -> None:
    """Both begin with a P."""
    with connect(proxied) as sock:
        sock.sendall(b"P")
        time.sleep(0.05)  # nothing tells that it has been read
        sock.sendall(b"OST /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 999.0.113.9 127.0.0.1 51234 3001\r\n",
        b"PROXY " + b"x" * 200,
        V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 3) + b"abc",
        V2_SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 65_535),
        V1 + V1,
    ],
)
def test_a_malformed_header_is_a_400(proxied: RunningServer, header: bytes) -> None:
    with connect(proxied) as sock:
        sock.sendall(header + REQUEST)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("header", [V1[:1], V1[:-1], V2[:20], V2[:5]])
def test_half_a_header_is_cut_at_the_deadline_of_a_head(proxied: RunningServer, header: bytes) -> None:
    with connect(proxied) as sock:
        started = time.monotonic()
        sock.sendall(header)
        assert read_all(sock) == b""
    assert time.monotonic() - started < 4


def test_a_header_is_read_from_allowed_peers_only(proxied: RunningServer) -> None:
    """The default of --proxy-allow-from is 127.0.0.1 and ::1."""
    for header in (V1, V2):
        with connect(proxied, "127.0.0.2") as sock:
            sock.sendall(header + REQUEST)
            assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    with connect(proxied, "127.0.0.2") as sock:
        sock.sendall(REQUEST)
        assert read_all(sock).startswith(b"HTTP/1.1 200 ")


def test_without_the_option_a_header_is_a_400(shared_server: RunningServer) -> None:
    with connect(shared_server) as sock:
        sock.sendall(V1 + REQUEST)
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("arguments", "accepted", "refused", "source"),
    [
        ("--proxy-protocol v1", V1, V2, "127.0.0.1"),
        ("--proxy-protocol v2", V2, V1, "127.0.0.1"),
        ("--proxy-protocol auto --proxy-allow-from 127.0.0.2", V2, V1[:-2] + b"!\r\n", "127.0.0.2"),
    ],
)
def test_the_options_choose_versions_and_peers(
    tmp_path: Path, arguments: str, accepted: bytes, refused: bytes, source: str
) -> None:
    with running(tmp_path, GUNICORN_CMD_ARGS=arguments) as server:
        for header, status in ((accepted, b"200"), (refused, b"400")):
            with connect(server, source) as sock:
                sock.sendall(header + REQUEST)
                assert read_all(sock)[9:12] == status


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_a_header_comes_before_tls(tmp_path: Path, header: bytes) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with running(tmp_path, SSL_CERT=certificate, SSL_KEY=key, GUNICORN_CMD_ARGS="--proxy-protocol v1") as server:
        if header == V2:
            with connect(server) as sock:
                sock.sendall(header)
                assert read_all(sock) == b"", "version 2 is not read, and is no TLS"
            return
        with connect(server) as plain:
            plain.sendall(header)
            with context.wrap_socket(plain) as tls:
                assert address_in_log(server, tls) == "203.0.113.9"


def test_the_address_goes_with_a_connection_to_another_worker(tmp_path: Path, tool: Callable[[str], str]) -> None:
    with several_workers(tmp_path, tool, 2, GUNICORN_CMD_ARGS="--proxy-protocol") as server:
        with connect(server) as sock:
            sock.sendall(V1 + b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            sid = json.loads(read_all(sock).partition(b"\r\n\r\n")[2][1:])["sid"]
        for _ in range(8):  # some of them reach the other worker
            with connect(server) as sock:
                sock.sendall(V2 + f"GET /socket.io/?EIO=4&transport=polling&sid={sid}x HTTP/1.1\r\nHost: x\r\n".encode())
                sock.sendall(b"Connection: close\r\n\r\n")
                assert b'"code":1' in read_all(sock)
            with connect(server) as sock:
                path = f"/socket.io/?EIO=4&transport=polling&sid={sid}"
                sock.sendall(
                    V2 + f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n6".encode()
                )
                assert read_all(sock).startswith(b"HTTP/1.1 200 ")
