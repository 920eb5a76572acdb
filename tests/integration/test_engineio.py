"""Conformance with Engine.IO protocol 4 on the wire: handshake, heartbeat, packets.

Source: github.com/socketio/engine.io-protocol.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.integration.conftest import Opens, OpensRaw, polling, websocket
from tests.integration.protocol import (
    RECORD_SEPARATOR,
    TRANSPORTS,
    PollingClient,
)
from tests.servers import RunningServer, mint, running, wait_for

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def beating_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a fast heartbeat, and little time for the CONNECT."""
    with running(tmp_path_factory.mktemp("beat"), PING_INTERVAL=0.3, PING_TIMEOUT=0.5, AUTH_TIMEOUT=2) as server:
        yield server


# Handshake


def test_the_handshake_over_polling_offers_the_upgrade(shared_server: RunningServer, opens: Opens) -> None:
    handshake = polling(shared_server, opens).handshake
    assert handshake.pop("sid")
    assert handshake == {"upgrades": ["websocket"], "pingInterval": 25_000, "pingTimeout": 60_000, "maxPayload": 65_536}


def test_the_handshake_over_websocket_offers_none(shared_server: RunningServer, opens: Opens) -> None:
    handshake = websocket(shared_server, opens).handshake
    assert handshake.pop("sid")
    assert handshake == {"upgrades": [], "pingInterval": 25_000, "pingTimeout": 60_000, "maxPayload": 65_536}


def test_sids_are_unguessable_and_differ(shared_server: RunningServer, opens: Opens) -> None:
    first, second = websocket(shared_server, opens), websocket(shared_server, opens)
    sids = {first.handshake["sid"], second.handshake["sid"], first.connect()["sid"], second.connect()["sid"]}
    assert len(sids) == 4  # the Socket.IO sid is known to others, the Engine.IO sid is a credential
    assert all(len(sid) >= 16 for sid in sids)


def test_polling_responses_are_plain_text_and_not_cached(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.send("40")
    answer = client.poll()
    assert answer.headers["Content-Type"].lower() == "text/plain; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    posted = client.post('42["ping"]')
    assert (posted.status_code, posted.text) == (200, "ok")


@pytest.mark.parametrize(
    ("method", "query", "code", "message"),
    [
        ("GET", "EIO=4", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=tls", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=polling&sid=unknown", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling&sid=unknown", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("PUT", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("GET", "EIO=4&transport=websocket", 3, "Bad request"),
        ("GET", "transport=polling", 5, "Unsupported protocol version"),
        ("GET", "EIO=3&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "EIO=five&transport=polling", 5, "Unsupported protocol version"),
        ("GET", "", 0, "Transport unknown"),
        ("GET", "&".join(["EIO=4&transport=polling"] * 200), 0, "Transport unknown"),
    ],
)
def test_a_bad_request_is_refused_with_the_error_of_the_node_js_server(
    shared_server: RunningServer, method: str, query: str, code: int, message: str
) -> None:
    answer = requests.request(method, f"{shared_server.url}/socket.io/?{query}", timeout=10)
    assert answer.status_code == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"code": code, "message": message}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
def test_a_session_takes_get_and_post_only(shared_server: RunningServer, opens: Opens, method: str) -> None:
    client = polling(shared_server, opens)
    assert client.http.request(method, client.session_url, timeout=10).status_code == 400
    client.connect()


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("EIO=4&transport=websocket&sid=unknown", b'"code":1'),
        ("EIO=3&transport=websocket", b'"code":5'),
        ("EIO=4&transport=nothing", b'"code":0'),
    ],
)
def test_a_bad_websocket_request_is_refused_before_its_upgrade(
    shared_server: RunningServer, opens_raw: OpensRaw, query: str, body: bytes
) -> None:
    raw = opens_raw(shared_server, query=query)
    assert raw.status == 400
    raw.sock.settimeout(10)
    while received := raw.sock.recv(65_536):
        raw.buffer += received
    assert body in raw.buffer


# Heartbeat


@over_both
def test_a_client_that_answers_the_heartbeat_stays_connected(
    beating_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(beating_server, transport)
    client.sign_in({"token": mint(f"beat-{transport}")})
    client.answers_pings = False
    for _ in range(4):
        assert client.receive() == "2"
        client.send("3")
    assert beating_server.broadcast([f"beat-{transport}"], {}).json()["totalSockets"] == 1


@over_both
def test_a_client_that_does_not_answer_the_heartbeat_is_closed(
    beating_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(beating_server, transport)
    client.answers_pings = False
    client.sign_in({"token": mint(f"dead-{transport}")})
    started = time.monotonic()
    assert client.rest() == ["2"]
    assert time.monotonic() - started < 3
    assert beating_server.broadcast([f"dead-{transport}"], {}).json()["totalSockets"] == 0


def test_other_traffic_is_no_answer_to_a_ping(beating_server: RunningServer, opens: Opens) -> None:
    client = opens(beating_server)
    client.answers_pings = False
    client.sign_in({"token": mint("busy")})
    ended = time.monotonic() + 5
    packets = []
    while (packet := client.receive()) is not None:
        packets.append(packet)
        if packet == "2":
            client.emit("ping")
        assert time.monotonic() < ended
    assert packets[0] == "2"


def test_a_polling_client_that_stops_polling_is_closed(beating_server: RunningServer, opens: Opens) -> None:
    opens(beating_server, "polling").sign_in({"token": mint("asleep")})
    wait_for(lambda: beating_server.broadcast(["asleep"], {}).json()["totalSockets"] == 0, 5, "the end of the session")


def test_pongs_without_a_ping_change_nothing(shared_server: RunningServer, opens: Opens) -> None:
    client = opens(shared_server)
    client.connect()
    for _ in range(10):
        client.send("3")
    client.pong()


def test_a_session_without_a_connect_packet_is_closed(beating_server: RunningServer, opens: Opens) -> None:
    client = opens(beating_server)
    started = time.monotonic()
    assert client.receive() is None
    assert 1.5 < time.monotonic() - started < 5


# Packets


@over_both
def test_a_close_packet_ends_the_session(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("leaver")})
    client.send("1")
    assert client.receive() is None
    shared_server.wait_for_connections(0)


@pytest.mark.parametrize("packet", ["", "7", "9", "x", "0", "0{}", "2", "2probe"])
@over_both
def test_a_packet_of_an_unknown_type_ends_the_session(
    shared_server: RunningServer, opens: Opens, transport: str, packet: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    if isinstance(client, PollingClient):
        assert client.post(packet).status_code == 400
        assert client.poll().status_code == 400
    else:
        client.send(packet)
    assert client.receive() is None


def test_a_malformed_socket_io_packet_over_polling_is_a_200_and_then_a_close_packet(
    shared_server: RunningServer, opens: Opens
) -> None:
    client = polling(shared_server, opens)
    client.connect()
    assert client.post("42{}").status_code == 200
    for _ in range(2):
        answer = client.poll()
        assert (answer.status_code, answer.text) == (200, "1")


def test_a_payload_may_hold_several_packets(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    packets = ["40" + json.dumps({"token": mint("ada")}), '42["ping"]', "3", '425["ping"]', '42["ping"]']
    assert client.post(RECORD_SEPARATOR.join(packets)).text == "ok"
    received = [client.receive() for _ in range(6)]
    assert isinstance(received[0], str)
    assert received[0].startswith("40{")
    assert isinstance(received[1], str)
    assert received[1].startswith('42["auth_success"')
    assert received[2:] == ['42["pong",null]', '42["pong",null]', "435[]", '42["pong",null]']


@pytest.mark.parametrize(
    "body",
    [
        b'42["ping"]\x1e',
        b'\x1e42["ping"]',
        b'42["ping"]\x1e\x1e42["ping"]',
        b'42["\xff"]',
        b"bnot base64!",
        b"\x1e".join([b'42["ping"]'] * 1000),
    ],
    ids=["trailing", "leading", "empty", "not UTF-8", "not base64", "too many"],
)
def test_a_malformed_payload_is_a_400_and_ends_the_session(shared_server: RunningServer, opens: Opens, body: bytes) -> None:
    client = polling(shared_server, opens)
    client.connect()
    assert client.post(body).status_code == 400
    assert client.receive() is None


def test_two_polls_at_once_end_the_session(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.sign_in({"token": mint("double")})
    answers: list[tuple[int, str]] = []

    def poll() -> None:
        answer = requests.get(client.session_url, timeout=10)
        answers.append((answer.status_code, answer.text))

    threads = [threading.Thread(target=poll) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers)[0] == (200, "1")
    assert sorted(answers)[1][0] == 400
    shared_server.wait_for_connections(0)


def test_a_half_sent_post_delays_no_other_client(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.connect()
    path = client.session_url.removeprefix(shared_server.url)
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as slow:
        slow.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n42[".encode())
        time.sleep(0.1)  # for the head to arrive, which cannot be observed
        other = opens(shared_server, "polling")
        other.connect()
        other.pong()
    assert shared_server.get("/health").status_code == 200


def test_hanging_up_on_a_poll_ends_the_session(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.sign_in({"token": mint("hangs-up")})
    path = client.session_url.removeprefix(shared_server.url)
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as poll:
        poll.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.2)  # for the poll to wait, which cannot be observed
    shared_server.wait_for_connections(0, 5)


def test_a_poll_waits_until_there_is_a_packet(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.sign_in({"token": mint("waiter")})
    later = threading.Timer(0.3, lambda: shared_server.broadcast(["waiter"], {"n": 1}))
    later.start()
    started = time.monotonic()
    assert client.event()[:2] == ["notification", {"n": 1}]
    assert time.monotonic() - started >= 0.25
    later.join()


# Transports


def test_a_transport_that_is_not_in_transports_is_refused(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, TRANSPORTS="websocket", DEMO=1) as server:
        answer = server.get("/socket.io/?EIO=4&transport=polling")
        assert (answer.status_code, answer.json()) == (400, {"code": 0, "message": "Transport unknown"})
        opens(server, "websocket").sign_in({"token": mint("ada")})
        assert server.get("/demo/config.json").json()["transports"] == ["websocket"]
