"""What unauthenticated clients can take: places, memory, and time."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw
from tests.integration.protocol import RawWebSocket, WebSocketClient
from tests.servers import RunningServer, mint, running, wait_for
from tests.workers import workers

HANDSHAKE = "/socket.io/?EIO=4&transport=polling"


def rss_bytes(server: RunningServer) -> int:
    """Return the resident memory of the only worker."""
    (worker,) = workers(server)
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(scope="module")
def narrow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with eight places, seven of them for unauthenticated sessions."""
    with running(tmp_path_factory.mktemp("narrow"), MAX_CONNECTIONS=8) as server:
        yield server


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_flood_of_sessions_does_not_keep_a_client_with_a_token_out(
    narrow_server: RunningServer, opens: Opens, opens_raw: OpensRaw, transport: str
) -> None:
    session = requests.Session()
    for _ in range(20):
        if transport == "polling":
            assert session.get(narrow_server.url + HANDSHAKE, timeout=10).status_code == 200
        else:
            assert opens_raw(narrow_server).status == 101
    client = opens(narrow_server)
    client.sign_in({"token": mint("good")})
    for _ in range(20):
        session.get(narrow_server.url + HANDSHAKE, timeout=10)
    client.pong()
    client.close()
    narrow_server.wait_for_connections(0)


def test_the_oldest_unauthenticated_session_is_closed_for_a_new_one(
    narrow_server: RunningServer, opens: Opens, opens_raw: OpensRaw
) -> None:
    first, *others = [opens_raw(narrow_server) for _ in range(7)]
    for raw in (first, *others):
        assert raw.text().startswith("0{")
    opens(narrow_server).sign_in({"token": mint("good")})  # evicts the first
    assert first.frame() is None
    for raw in others:
        raw.send("40")
        assert raw.text().startswith("40{")


def test_authenticated_clients_fill_every_place_and_the_next_one_is_a_503(
    tmp_path: Path, opens: Opens, opens_raw: OpensRaw
) -> None:
    with running(tmp_path, MAX_CONNECTIONS=4) as server:
        inside = [opens(server, transport) for transport in ("websocket", "polling")]
        for client in inside:
            client.sign_in({"token": mint("inside")})
        inside += [opens(server) for _ in range(2)]
        for client in inside[2:]:
            client.sign_in({"token": mint("inside")})
        answer = requests.get(server.url + HANDSHAKE, timeout=10)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert opens_raw(server).status == 503
        assert server.get("/health").status_code == 200
        for client in inside:
            client.pong()
        inside[0].close()
        wait_for(lambda: requests.get(server.url + HANDSHAKE, timeout=10).status_code == 200, 5, "a free place")


@pytest.mark.parametrize("delay_s", [0.0, 0.8])
def test_half_an_upgrade_holds_a_place_no_longer_than_the_time_to_authenticate(
    tmp_path: Path, opens: Opens, delay_s: float
) -> None:
    with running(tmp_path, MAX_CONNECTIONS_PER_IP=1, AUTH_TIMEOUT=1) as server:
        started = time.monotonic()
        polling = opens(server, "polling")
        time.sleep(delay_s)
        upgrading = WebSocketClient(server, query=f"&sid={polling.handshake['sid']}")
        upgrading.send("2probe")
        assert upgrading.receive() == "3probe"
        answers = requests.Session()
        wait_for(lambda: answers.get(server.url + HANDSHAKE, timeout=10).status_code == 200, 15, "a free place")
        assert time.monotonic() - started < 3.5
        upgrading.close()


# Memory


def test_handshakes_with_large_cookies_are_not_held(tmp_path: Path) -> None:
    with running(tmp_path, LOG_LEVEL="warning") as server:
        padding = "x" * 30_000
        session = requests.Session()
        for _ in range(50):
            session.get(server.url + HANDSHAKE, timeout=10)
        before = rss_bytes(server)
        for _ in range(1_500):
            answer = session.get(server.url + HANDSHAKE, headers={"Cookie": f"a={padding}; jwt=t; id=1"}, timeout=10)
            assert answer.status_code == 200
        assert rss_bytes(server) - before < 15_000_000  # 45 MB were sent


HELD = {
    "a binary event without its attachment": '451-["x",' + ",".join(["{}"] * 20_000) + "]",
    "the same with wide characters": '451-["x","😀",' + ",".join(["{}"] * 20_000) + "]",
}


@pytest.mark.parametrize("packet", HELD.values(), ids=HELD)
def test_a_partial_binary_event_takes_at_most_four_times_the_memory_that_was_sent(tmp_path: Path, packet: str) -> None:
    count, size = 200, len(packet.encode())
    with running(tmp_path, MAX_CONNECTIONS_PER_USER=1000, LOG_LEVEL="warning") as server, contextlib.ExitStack() as stack:
        raws = [stack.enter_context(RawWebSocket(server.port)) for _ in range(count)]
        for raw in raws:
            raw.sign_in(mint("ada"))
        before = rss_bytes(server)
        for raw in raws:
            raw.send(packet)
            raw.send("3")
        server.wait_for_connections(count)
        grown = rss_bytes(server) - before
        print(f"grown by {grown / (count * size):.2f} times what was sent")
        assert grown < 4 * count * size, f"{grown / (count * size):.1f} times"


@pytest.mark.parametrize(
    "packet",
    [
        '42["auth",' + ",".join(["{}"] * 20_000) + "]",
        "40" + json.dumps({"note": [[]] * 15_000}, separators=(",", ":")),
        '42["x",' + "[" * 30_000,
        "\x1e".join(['42["x",' + "[]," * 300 + "0]"] * 60),
    ],
    ids=["auth", "connect", "nested", "many"],
)
def test_parsed_json_of_unauthenticated_clients_is_not_held(tmp_path: Path, packet: str) -> None:
    with running(tmp_path, LOG_LEVEL="warning") as server:
        session = requests.Session()

        def send() -> None:
            opening = session.get(server.url + HANDSHAKE, timeout=10).text
            url = f"{server.url}{HANDSHAKE}&sid={json.loads(opening[1:])['sid']}"
            if not packet.startswith("40"):
                session.post(url, data=b"40", timeout=10)
            session.post(url, data=packet.encode(), timeout=10)

        for _ in range(20):
            send()
        before = rss_bytes(server)
        for _ in range(200):
            send()
        assert rss_bytes(server) - before < 4 * 200 * len(packet)


def test_a_binary_event_without_its_attachments_is_closed_in_the_time_of_a_half_sent_message() -> None:
    from socket_server.transport.engineio import websocket
    from socket_server.transport.socketio import partial_packet

    assert partial_packet.COMPLETE_WITHIN_S == websocket.HALF_SENT_S


def test_a_connection_that_is_evicted_is_not_told_and_frees_its_descriptor_at_once(narrow_server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", narrow_server.port), timeout=10))
            RawWebSocket(narrow_server.port, sock=sock)
        (worker,) = workers(narrow_server)
        wait_for(lambda: len(os.listdir(f"/proc/{worker}/fd")) < 60, 5, "closed descriptors")
