"""SIGTERM and Ctrl-C: a drain, and an end with status 0 (docs/protocol.md, shutdown)."""

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw
from tests.integration.protocol import CLOSE, TRANSPORTS, PollingClient, RawWebSocket, WebSocketClient
from tests.servers import (
    API_KEY,
    RunningServer,
    mint,
    running,
    wait_for,
)

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


def collect_closes(sockets: list[RawWebSocket], until_s: float) -> dict[int, tuple[float, int]]:
    """Read all sockets at once. Return index -> (time, code) of each CLOSE frame; code -1: the end of the stream."""
    closes: dict[int, tuple[float, int]] = {}
    with selectors.DefaultSelector() as selector:
        for index, raw in enumerate(sockets):
            selector.register(raw.sock, selectors.EVENT_READ, index)
        while len(closes) < len(sockets) and time.monotonic() < until_s:
            for key, _ in selector.select(0.2):
                raw = sockets[key.data]
                frame = raw.frame()
                while frame is not None and frame[0] != CLOSE and raw.buffer:
                    frame = raw.frame()
                if frame is not None and frame[0] != CLOSE:
                    continue
                code = -1 if frame is None else int.from_bytes(frame[1][:2], "big")
                closes[key.data] = (time.monotonic(), code)
                selector.unregister(key.fileobj)
                raw.sock.close()
    return closes


def test_sigterm_drains_evenly_with_1012_and_ends_with_status_0(tmp_path: Path) -> None:
    count, drain_s = 500, 3
    with running(tmp_path, DRAIN_SECONDS=drain_s) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(RawWebSocket(server.port)) for _ in range(count)]
        for number, raw in enumerate(sockets):
            raw.sign_in(mint(number))
        polling = stack.enter_context(PollingClient(server))
        polling.sign_in({"token": mint("poller")})
        polled: list[str] = []
        waiting = threading.Thread(target=lambda: polled.append(polling.poll().text))
        waiting.start()
        server.wait_for_connections(count + 1)

        refused: dict[str, Any] = {}

        def ask_while_draining() -> None:
            wait_for(lambda: server.get("/health").status_code == 503, 2, "draining")
            refused["health"] = server.get("/health").json()
            refused["live"] = server.get("/health/live").status_code
            refused["polling"] = requests.get(server.url + HANDSHAKE, timeout=5)
            with RawWebSocket(server.port) as raw:
                refused["websocket"] = raw.status
            refused["broadcast"] = server.broadcast([str(count - 1)], {"title": "late"}).status_code

        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        asking = threading.Thread(target=ask_while_draining)
        asking.start()
        closes = collect_closes(sockets, signalled + 5)
        status = server.process.wait(max(0.1, signalled + 5 - time.monotonic()))
        assert status == 0
        asking.join()
        waiting.join()

        assert refused["health"]["status"] == "draining"
        assert refused["live"] == 200
        assert refused["polling"].status_code == 503
        assert int(refused["polling"].headers["Retry-After"]) >= 1
        assert refused["websocket"] == 503
        assert refused["broadcast"] == 200  # to those that are still connected

        assert len(closes) == count
        assert {code for _, code in closes.values()} == {1012}
        times = sorted(when - signalled for when, _ in closes.values())
        assert times[-1] <= drain_s + 1
        sixths = [
            sum(1 for when in times if low <= when - times[0] < low + drain_s / 6) for low in (0, 0.5, 1, 1.5, 2, 2.5)
        ]
        assert all(count / 6 * 0.5 < each < count / 6 * 1.6 for each in sixths), sixths
        assert polled
        assert polled[0].split("\x1e")[-1] == "1"
        assert "Traceback" not in server.log()


def post_of(broadcast: dict[str, Any]) -> bytes:
    """Return a whole POST /broadcast."""
    body = json.dumps(broadcast).encode()
    head = (
        f"POST /broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {API_KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("drain_s", [2, 0])
def test_a_request_in_flight_at_sigterm_is_answered(tmp_path: Path, drain_s: int) -> None:
    request = post_of({"userIds": ["1"], "notification": {"title": "in flight"}})
    with running(tmp_path, DRAIN_SECONDS=drain_s) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock, RawWebSocket(server.port) as raw:
            raw.sign_in(mint("somebody"))
            sock.sendall(request[:-10])
            wait_for(lambda: server.get("/health").ok, what="health")
            server.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "draining" in server.log(), what="the drain")
            time.sleep(0.2)
            sock.sendall(request[-10:])
            answer = sock.recv(65_536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"success":true' in answer.replace(b" ", b"")
        assert server.process.wait(5) == 0


def test_every_connection_is_answered_or_refused_while_the_server_stops(tmp_path: Path) -> None:
    """No connection is accepted and then reset: a proxy cannot repeat a post, but it can try the next server."""
    answers: list[bytes] = []
    with running(tmp_path, DRAIN_SECONDS=0.3) as server:

        def publish() -> None:
            """Post over one new connection after the other, until one is refused."""
            while True:
                try:
                    sock = socket.create_connection(("127.0.0.1", server.port), timeout=10)
                except ConnectionError:
                    return
                with sock:
                    try:
                        sock.sendall(post_of({"userIds": ["1"], "notification": {}}))
                        answers.append(sock.recv(65_536)[:12])
                    except OSError as error:
                        answers.append(repr(error).encode())

        publishing = [threading.Thread(target=publish) for _ in range(6)]
        for each in publishing:
            each.start()
        wait_for(lambda: len(answers) > 300, what="some posts")
        assert server.stop() == 0
        for each in publishing:
            each.join()
    assert set(answers) == {b"HTTP/1.1 200"}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_stops_sends_what_it_has_answered_with_200(tmp_path: Path, sig: signal.Signals) -> None:
    """Nothing is kept, so no client could recover: each answer's totalSockets must have received its notification."""
    received: dict[socket.socket, bytearray] = {}
    answers: list[dict[str, Any]] = []
    users = [str(number) for number in range(400)]
    with (
        running(tmp_path, INBOX_URL="memory://", DRAIN_SECONDS=0.5) as server,
        contextlib.ExitStack() as stack,
        selectors.DefaultSelector() as selector,
    ):
        for user in users:
            raw = stack.enter_context(RawWebSocket(server.port))
            raw.sign_in(mint(user))
            selector.register(raw.sock, selectors.EVENT_READ)
            received[raw.sock] = bytearray()

        def publish() -> None:
            """Post, one after the other, until there is no answer."""
            post = post_of({"userIds": users, "notification": {"some": "x" * 200}, "ttl": 0})
            with contextlib.suppress(OSError, json.JSONDecodeError):
                while True:
                    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
                        answer = b"Connection: keep-alive"
                        while b"Connection: close" not in answer:
                            sock.sendall(post)
                            answer = sock.recv(65_536)
                            answers.append(json.loads(answer.partition(b"\r\n\r\n")[2]))

        publishing = [threading.Thread(target=publish) for _ in range(3)]
        for each in publishing:
            each.start()
        stopping = None
        while selector.get_map():
            for key, _ in selector.select(10):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                try:
                    data = sock.recv(65_536)
                except ConnectionResetError:
                    data = b""
                received[sock] += data
                if not data:
                    selector.unregister(sock)
            if stopping is None and len(answers) > 100:
                stopping = threading.Thread(target=server.stop, args=(sig,))
                stopping.start()
        for each in publishing:
            each.join()
        assert stopping is not None
        stopping.join()
    received_count = Counter(offset for data in received.values() for offset in re.findall(rb',"(\d+)"\]', data))
    counted = {answer["id"]: answer["totalSockets"] for answer in answers if answer.get("success")}
    assert len(counted) > 100
    assert {
        offset: (count, received_count[offset.encode()])
        for offset, count in counted.items()
        if received_count[offset.encode()] < count
    } == {}


def test_transports_are_closed_before_the_process_ends(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, DRAIN_SECONDS=0) as server:
        websocket, polling = (opens(server, transport) for transport in TRANSPORTS)
        for client in (websocket, polling):
            client.sign_in({"token": mint("ada")})
        rest: list[Any] = []
        reading = threading.Thread(target=lambda: rest.extend(polling.rest()))
        reading.start()
        time.sleep(0.1)  # nothing tells that the poll waits
        assert server.stop() == 0
        reading.join(5)
        assert rest == []  # no Socket.IO DISCONNECT: clients reconnect by themselves
        assert polling.closed_politely
        assert websocket.rest() == []
        assert isinstance(websocket, WebSocketClient)
        assert websocket.close_code == 1012


def test_ctrl_c_ends_at_once_with_status_0_and_no_traceback(tmp_path: Path) -> None:
    with running(tmp_path, DRAIN_SECONDS=10) as server, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(RawWebSocket(server.port)) for _ in range(50)]
        for raw in sockets:
            raw.sign_in(mint("ada" + str(id(raw))))
        at = time.monotonic()
        os.killpg(server.process.pid, signal.SIGINT)  # as a terminal does
        assert server.process.wait(5) == 0
        assert time.monotonic() - at < 1
        assert {raw.close_code() for raw in sockets} == {1012}
        assert "Traceback" not in server.log()


def test_a_client_that_has_gone_before_its_first_packet_is_no_error(server: RunningServer, opens_raw: OpensRaw) -> None:
    """As after the server was stopped for a while: the clients have given up before it reads their requests."""
    request = (
        "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    os.killpg(server.process.pid, signal.SIGSTOP)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port)) as gone:
            gone.sendall(request.encode())
    os.killpg(server.process.pid, signal.SIGCONT)
    opens_raw(server).sign_in(mint())
    assert "Traceback" not in server.log(), server.log()
