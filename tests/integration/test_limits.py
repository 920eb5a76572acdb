"""The limits of one client and of all connections (docs/configuration.md)."""

import contextlib
import json
import resource
import selectors
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Opens, OpensRaw
from tests.integration.protocol import TEXT, TRANSPORTS, PollingClient, RawWebSocket
from tests.servers import BIN, RunningServer, free_port, mint, running, start, wait_for

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with low limits."""
    with running(tmp_path_factory.mktemp("narrow"), MAX_CONNECTIONS=8, MAX_MESSAGE_BYTES=2000) as server:
        yield server


def wait_until_not_full(server: RunningServer) -> None:
    """Return once a session can be opened: those of the test before may still be ending."""

    def accepts() -> bool:
        with contextlib.suppress(AssertionError), PollingClient(server):
            return True
        return False

    wait_for(accepts, what="an accepted handshake")


def test_the_handshake_names_the_largest_message(narrow_server: RunningServer, opens: Opens) -> None:
    wait_until_not_full(narrow_server)
    assert opens(narrow_server).handshake["maxPayload"] == 2000


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_message_above_max_message_bytes_closes_its_connection(
    narrow_server: RunningServer, opens: Opens, transport: str
) -> None:
    server = narrow_server
    wait_until_not_full(server)
    client = opens(server, transport)
    client.sign_in({"token": mint("talker")})
    client.send('42["ping","' + "x" * (2000 - len('42["ping",""]')) + '"]')  # exactly as large as allowed
    assert client.event() == ["pong", None]
    packet = '42["ping","' + "x" * 1990 + '"]'
    if isinstance(client, PollingClient):
        assert client.post(packet).status_code == 413  # the official client then ends its session
        return
    client.send(packet)
    assert client.receive() is None
    assert client.close_code == 1009  # type: ignore[attr-defined]
    server.wait_for_connections(0)


def test_a_chunked_post_above_max_message_bytes_is_refused(narrow_server: RunningServer, opens: Opens) -> None:
    server = narrow_server
    wait_until_not_full(server)
    client = opens(server, "polling")
    assert isinstance(client, PollingClient)
    client.sign_in({"token": mint("talker")})
    chunks = iter([b'42["ping","', *[b"x" * 500] * 6, b'"]'])
    assert client.http.post(client.session_url, data=chunks, timeout=10).status_code == 413
    assert server.get("/health").status_code == 200


def test_a_slow_consumer_is_closed_and_the_others_keep_receiving(tmp_path: Path, opens: Opens, opens_raw: OpensRaw) -> None:
    with running(tmp_path, SEND_BACKLOG_BYTES=1_000_000) as server:
        slow = opens_raw(server, receive_buffer=4096)  # never reads from now on
        slow.sign_in(mint("reader"))
        idle = opens(server, "polling")  # never polls from now on
        idle.sign_in({"token": mint("reader")})
        quick = opens(server)
        quick.sign_in({"token": mint("reader")})
        text = "x" * 200_000
        sent = 0

        def slow_ones_closed() -> bool:
            nonlocal sent
            started = time.monotonic()
            report = server.broadcast(["reader"], {"n": sent, "text": text}).json()
            assert time.monotonic() - started < 2, "a slow consumer must not delay the publisher"
            assert quick.event()[1]["n"] == sent
            sent += 1
            return bool(report["totalSockets"] == 1)

        wait_for(slow_ones_closed, 30, "the close of the slow consumers")
        assert server.stats()["totalConnections"] == 1
        assert sent * len(text) > 1_000_000
        quick.pong()
        # The transport is closed without a Socket.IO DISCONNECT, so the client reconnects by itself.
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while data := slow.sock.recv(1_048_576):
                received += data
        assert b"\x81\x0241" not in received
        assert "slow consumer" in server.log()


def test_a_burst_within_the_backlog_reaches_a_late_reader_completely(tmp_path: Path, opens_raw: OpensRaw) -> None:
    with running(tmp_path, SEND_BACKLOG_BYTES=20_000_000) as server:
        late = opens_raw(server, receive_buffer=4096)
        late.sign_in(mint("late"))
        text = "x" * 100_000
        for number in range(50):
            assert server.broadcast(["late"], {"n": number, "text": text}).json()["totalSockets"] == 1
        assert [json.loads(late.text()[2:])[1]["n"] for _ in range(50)] == list(range(50))
        late.send('42["ping"]')
        assert late.text() == '42["pong",null]'


COUNT = 2000


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Raise the limit of open files of this process as far as the test needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < COUNT + 500:
        pytest.skip(f"only {hard} open files are allowed here")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, COUNT + 500), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_2000_connections_of_one_process_are_served_and_leave_nothing_open(tmp_path: Path) -> None:
    with running(tmp_path, MAX_CONNECTIONS=COUNT, LOG_LEVEL="warning") as server, contextlib.ExitStack() as stack:
        sockets = []
        for number in range(COUNT):
            raw = stack.enter_context(RawWebSocket(server.port))
            raw.send("40" + json.dumps({"token": mint(number // 2)}))
            sockets.append(raw)
        server.wait_for_connections(COUNT)
        assert server.stats() == {
            "connectedUsers": COUNT // 2,
            "totalConnections": COUNT,
            "averageConnectionsPerUser": 2,
        }
        report = server.broadcast(list(range(COUNT // 2)), {"title": "to everyone"}).json()
        offset = report.pop("id")
        assert report == {
            "success": True,
            "deliveredTo": COUNT // 2,
            "totalSockets": COUNT,
            "requestedUsers": COUNT // 2,
        }
        expected = f'42["notification",{{"title": "to everyone"}},"{offset}"]'
        for raw in sockets:
            opening, connected, success, notification = (raw.text() for _ in range(4))
            assert (opening[0], connected[:2], success[:16]) == ("0", "40", '42["auth_success')
            assert notification == expected

        for index, raw in enumerate(sockets):
            match index % 4:
                case 0:  # a clean close
                    raw.sock.sendall(struct.pack("!BB4sH", 0x88, 0x82, b"\0\0\0\0", 1000))
                case 1:  # a reset
                    raw.reset()
                case 2:  # closed without a CLOSE frame
                    raw.sock.close()
                case 3:  # half closed
                    raw.sock.shutdown(socket.SHUT_WR)
        server.wait_for_connections(0)
        assert server.stats() == {"connectedUsers": 0, "totalConnections": 0, "averageConnectionsPerUser": 0}

        def descriptors_of_the_worker() -> int:
            children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
            return sum(1 for _ in Path(f"/proc/{children[0]}/fd").iterdir())

        wait_for(lambda: descriptors_of_the_worker() < 100, what="the release of the file descriptors")
        with RawWebSocket(server.port) as again:
            again.sign_in(mint("again"))


@pytest.mark.usefixtures("descriptors")
def test_clients_that_vanish_silently_are_found_by_the_heartbeat(tmp_path: Path) -> None:
    """The client sends no FIN and no RST, as when its network is gone."""
    with (
        running(tmp_path, PING_INTERVAL=0.3, PING_TIMEOUT=0.5, LOG_LEVEL="warning") as server,
        contextlib.ExitStack() as stack,
        selectors.DefaultSelector() as selector,
    ):
        for number in range(200):
            raw = stack.enter_context(RawWebSocket(server.port))
            raw.send("40" + json.dumps({"token": mint(number)}))
            selector.register(raw.sock, selectors.EVENT_READ)
        server.wait_for_connections(0)
        assert server.get("/health").status_code == 200


def test_a_server_with_too_few_file_descriptors_warns_and_runs(tmp_path: Path) -> None:
    shell = shutil.which("sh")
    assert shell is not None
    port = free_port()
    settings = {
        "APP_ENV": "production",
        "HOST": "127.0.0.1",
        "PORT": port,
        "JWT_SECRET": "x" * 40,
        "API_KEYS": "none",
        "MAX_CONNECTIONS": 5000,
        "DRAIN_SECONDS": 0,
    }
    # Root could raise the hard limit.
    drop = f"{shutil.which('setpriv')} --bounding-set=-sys_resource " if shutil.which("setpriv") else ""
    command = [shell, "-c", f"ulimit -Sn 500 && ulimit -Hn 1000 && exec {drop}{BIN / 'gunicorn'} wsgi:app"]
    server = start(tmp_path / "log", command, port, **settings)
    try:
        [line] = [line for line in server.log().splitlines() if "may open" in line]
        assert line.startswith("[Server]")
        assert " warning " in line
        for needed in ("1000 files", "MAX_CONNECTIONS", "ulimit -n 9096", "LimitNOFILE"):
            assert needed in line
        assert server.get("/health").status_code == 200
    finally:
        assert server.stop() == 0
        server.session.close()


def test_a_flood_of_one_connection_does_not_delay_another(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    noisy, calm = opens_raw(shared_server), opens_raw(shared_server)
    for raw in (noisy, calm):
        raw.sign_in(mint("ada"))
    frame = struct.pack("!BBH4s", 0x80 | TEXT, 0xFE, 1000, b"\0\0\0\0") + b'42["x","' + b"y" * 990 + b'"]'
    with contextlib.suppress(ConnectionError, socket.timeout):
        noisy.sock.settimeout(0.5)
        noisy.sock.sendall(frame * 500)
    started = time.monotonic()
    calm.send('42["ping"]')
    assert calm.text() == '42["pong",null]'
    assert time.monotonic() - started < 2
