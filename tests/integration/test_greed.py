"""Unauthenticated clients that take all they can get. A well-behaved client must be served at once beside them."""

import base64
import contextlib
import http.server
import json
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from socket_server.transport.engineio.frames import BINARY
from socket_server.transport.http.open_connections import MAX_WAITING
from tests.integration.certificates import self_signed
from tests.integration.protocol import RawWebSocket, encode_frame
from tests.servers import API_KEY, RunningServer, limited_descriptors, mint, running, wait_for
from tests.workers import open_files, workers


@contextlib.contextmanager
def attack(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` in another thread until the block ends; the event is set then."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def slowest_answer_s(server: RunningServer, seconds: float) -> float:
    """Send one request after the other. Return the longest time to an answer."""
    slowest, ends = 0.0, time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.monotonic()
        assert server.get("/health/live").ok
        slowest = max(slowest, time.monotonic() - started)
    return slowest


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=5)


def test_pipelined_requests_do_not_delay_others(server: RunningServer) -> None:
    def pipeline(over: threading.Event) -> None:
        requests_at_once = b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n" * 500
        with connect(server) as sock:

            def read() -> None:
                # At the end it closes while the server is still answering: it may be reset.
                with contextlib.suppress(OSError):
                    while sock.recv(1 << 20):
                        pass

            reading = threading.Thread(target=read)
            reading.start()
            while not over.is_set():
                sock.sendall(requests_at_once)
            sock.shutdown(socket.SHUT_RDWR)
            reading.join()

    with attack(pipeline):
        assert slowest_answer_s(server, 2) < 1  # without time slices: as long as the attack


def test_trailers_without_end_are_refused(server: RunningServer) -> None:
    with connect(server) as sock:
        sock.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: ")
        answer = b""
        with contextlib.suppress(OSError):
            for _ in range(400):
                sock.sendall(b"a" * 4_096)
        with contextlib.suppress(OSError):
            answer = sock.recv(65_536)
    assert answer[:12] in (b"HTTP/1.1 431", b"")  # or a reset, which may arrive before the answer
    assert server.get("/health/live").ok


def test_half_sent_bodies_do_not_keep_others_out(tmp_path: Path) -> None:
    with running(tmp_path, MAX_CONNECTIONS=100) as server, contextlib.ExitStack() as silent:
        for _ in range(1_300):
            sock = silent.enter_context(connect(server))
            sock.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1")
        started = time.monotonic()
        assert requests.get(server.url + "/health/live", timeout=10).ok
        assert time.monotonic() - started < 5
        assert "Errno" not in server.log()


def test_silent_connections_are_limited_and_a_served_one_outlives_them(server: RunningServer) -> None:
    (worker,) = workers(server)
    served = connect(server)
    served.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert served.recv(65_536).startswith(b"HTTP/1.1 200 ")
    held = 0
    with contextlib.ExitStack() as silent:
        for number in range(3_000):
            silent.enter_context(connect(server))
            if number % 100 == 0:
                held = max(held, len(open_files(worker)))
        assert MAX_WAITING / 2 < held < MAX_WAITING + 500  # some are being opened or closed
        with served:
            served.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert served.recv(65_536).startswith(b"HTTP/1.1 200 ")


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02\x00"], ids=["nothing", "a byte", "half a record"])
def test_silent_clients_of_tls_are_limited_and_delay_no_other(tmp_path: Path, sent: bytes) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with running(tmp_path, SSL_CERT=certificate, SSL_KEY=key) as server, contextlib.ExitStack() as silent:
        (worker,) = workers(server)
        before = resident_mb(worker)
        for _ in range(3_000):
            sock = silent.enter_context(connect(server))
            with contextlib.suppress(OSError):
                sock.sendall(sent)
        started = time.monotonic()
        with connect(server) as plain, context.wrap_socket(plain) as tls:
            tls.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert tls.recv(100).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - started < 2
        assert len(open_files(worker)) < MAX_WAITING + 500
        assert resident_mb(worker) - before < (20 if not sent else 100)  # 50 KB for each handshake that has begun


UPGRADE = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("request_bytes", [UPGRADE, b"GET /", b""], ids=["WebSockets", "half requests", "silent"])
def test_a_back_end_connects_while_others_hold_all_file_descriptors(tmp_path: Path, request_bytes: bytes) -> None:
    with limited_descriptors(tmp_path, 600, MAX_CONNECTIONS=1_000, AUTH_TIMEOUT=60) as server:
        (worker,) = workers(server)
        with contextlib.ExitStack() as others:
            for _ in range(700):
                sock = others.enter_context(connect(server))
                with contextlib.suppress(OSError):
                    sock.sendall(request_bytes)
            for _ in range(5):
                started = time.monotonic()
                answer = requests.post(
                    server.url + "/broadcast",
                    json={"userIds": ["1"], "notification": {}},
                    headers=server.api_headers,
                    timeout=10,
                )
                assert answer.status_code == 200
                assert time.monotonic() - started < 2
            assert len(open_files(worker)) < 600
        assert "out of file descriptors" not in server.log()
        wait_for(lambda: len(open_files(worker)) < 100, what="the release of the descriptors")


@pytest.mark.parametrize("together", [True, False])
def test_an_offer_of_http_2_is_ignored(server: RunningServer, together: bool) -> None:
    body = json.dumps({"userIds": ["1"], "notification": {"title": "שלום"}}).encode()
    head = (
        f"POST /broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Type: application/json\r\n"
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    with connect(server) as sock:
        for _ in range(2):  # the connection is kept
            if together:
                sock.sendall(head + body)
            else:
                sock.sendall(head)
                time.sleep(0.05)
                sock.sendall(body)
            assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")


def test_connect_and_disconnect_do_not_extend_the_time_to_authenticate(tmp_path: Path) -> None:
    with running(tmp_path, AUTH_TIMEOUT=1) as server, connect(server) as sock:
        sock.sendall(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            b"\x81\x82\0\0\0\x0040\x81\x82\0\0\0\x0041"
        )
        received = b""
        while data := sock.recv(65_536):
            received += data
        assert b"40{" in received


def test_attachments_together_are_within_the_message_limit(server: RunningServer) -> None:
    with RawWebSocket(server.port) as raw:
        raw.sign_in(mint("ada"))
        server.wait_for_connections(1)
        raw.send('4510-["x"]')
        with contextlib.suppress(OSError):
            for _ in range(9):
                raw.sock.sendall(encode_frame(BINARY, b"x" * 65_000))
        server.wait_for_connections(0)


class SlowKeys(http.server.BaseHTTPRequestHandler):
    """An identity provider that takes two seconds to answer."""

    def do_GET(self) -> None:
        time.sleep(2)
        body = json.dumps({"keys": []}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_slow_identity_provider_does_not_extend_the_time_to_authenticate(tmp_path: Path) -> None:
    provider = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowKeys)
    threading.Thread(target=provider.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{provider.server_address[1]}/jwks.json"
        with running(tmp_path, JWT_JWKS_URL=url, AUTH_TIMEOUT=0.5) as server, RawWebSocket(server.port) as raw:
            parts = ({"kid": "unknown", "alg": "RS256"}, {"id": "1"}, "no signature")
            unsigned = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
            assert raw.text().startswith("0{")
            started = time.monotonic()
            raw.send("40" + json.dumps({"token": ".".join(unsigned)}))
            wait_for(lambda: "code=auth_timeout" in server.log(), 5, "the end of the time to authenticate")
            assert time.monotonic() - started < 1.9
    finally:
        provider.shutdown()
        provider.server_close()
