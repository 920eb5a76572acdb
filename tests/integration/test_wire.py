"""Conformance on the wire: Engine.IO 4, Socket.IO 5 and RFC 6455, written from the documents.

Sources: github.com/socketio/engine.io-protocol, github.com/socketio/socket.io-protocol, RFC 6455.
"""

import base64
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.integration.certificates import self_signed
from tests.integration.conftest import Opens, OpensRaw
from tests.integration.protocol import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RECORD_SEPARATOR,
    TEXT,
    TRANSPORTS,
    PollingClient,
    RawWebSocket,
    WebSocketClient,
    encode_frame,
)
from tests.servers import RunningServer, mint, running, wait_for

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


@pytest.fixture(scope="module")
def beating_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a fast heartbeat, and little time for the CONNECT."""
    with running(tmp_path_factory.mktemp("beat"), PING_INTERVAL=0.3, PING_TIMEOUT=0.5, AUTH_TIMEOUT=2) as server:
        yield server


def polling(server: RunningServer, opens: Opens) -> PollingClient:
    opened = opens(server, "polling")
    assert isinstance(opened, PollingClient)
    return opened


def websocket(server: RunningServer, opens: Opens, query: str = "") -> WebSocketClient:
    opened = opens(server, "websocket", query=query)
    assert isinstance(opened, WebSocketClient)
    return opened


# Engine.IO: handshake


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


def test_polling_answers_are_plain_text_that_nobody_caches(shared_server: RunningServer, opens: Opens) -> None:
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
        ("GET", "EIO=4&transport=polling&sid=nobody", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling&sid=nobody", 1, "Session ID unknown"),
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
def test_a_bad_request_is_refused_with_the_error_that_clients_know(
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
        ("EIO=4&transport=websocket&sid=nobody", b'"code":1'),
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


# Engine.IO: heartbeat


@over_both
def test_who_answers_the_heartbeat_stays(beating_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(beating_server, transport)
    client.sign_in({"token": mint(f"beat-{transport}")})
    client.answers_pings = False
    for _ in range(4):
        assert client.receive() == "2"
        client.send("3")
    assert beating_server.broadcast([f"beat-{transport}"], {}).json()["totalSockets"] == 1


@over_both
def test_who_does_not_answer_the_heartbeat_is_closed(beating_server: RunningServer, opens: Opens, transport: str) -> None:
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


def test_pongs_that_nobody_asked_for_change_nothing(shared_server: RunningServer, opens: Opens) -> None:
    client = opens(shared_server)
    client.connect()
    for _ in range(10):
        client.send("3")
    client.pong()


def test_who_never_connects_is_closed(beating_server: RunningServer, opens: Opens) -> None:
    client = opens(beating_server)
    started = time.monotonic()
    assert client.receive() is None
    assert 1.5 < time.monotonic() - started < 5


# Engine.IO: packets


@over_both
def test_a_close_packet_ends_the_session(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("leaver")})
    client.send("1")
    assert client.receive() is None
    shared_server.wait_for_connections(0)


@pytest.mark.parametrize("packet", ["", "7", "9", "x", "0", "0{}", "2", "2probe"])
@over_both
def test_a_packet_of_an_unknown_kind_ends_the_session(
    shared_server: RunningServer, opens: Opens, transport: str, packet: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.send(packet)
    assert client.receive() is None


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
def test_a_payload_that_is_none_ends_the_session(shared_server: RunningServer, opens: Opens, body: bytes) -> None:
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


def test_a_post_that_is_half_sent_holds_up_nobody(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.connect()
    path = client.session_url.removeprefix(shared_server.url)
    with socket.create_connection(("127.0.0.1", shared_server.port), timeout=10) as slow:
        slow.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n42[".encode())
        time.sleep(0.1)  # nothing tells that the head has arrived
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
        time.sleep(0.2)  # nothing tells that the poll waits
    shared_server.wait_for_connections(0, 5)


def test_a_poll_waits_until_there_is_something(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.sign_in({"token": mint("waiter")})
    later = threading.Timer(0.3, lambda: shared_server.broadcast(["waiter"], {"n": 1}))
    later.start()
    started = time.monotonic()
    assert client.event()[:2] == ["notification", {"n": 1}]
    assert time.monotonic() - started >= 0.25
    later.join()


# Engine.IO: upgrade


def upgrade(server: RunningServer, opens: Opens, client: PollingClient) -> WebSocketClient:
    return websocket(server, opens, query=f"&sid={client.handshake['sid']}")


def test_the_probe_dance_moves_a_session_to_websocket(shared_server: RunningServer, opens: Opens) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("mover")})
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    assert old.poll().text == "6"
    shared_server.broadcast(["mover"], {"n": 1})  # between probe and upgrade: must not get lost
    new.send("5")
    assert new.event()[1] == {"n": 1}
    new.pong()
    assert shared_server.stats()["totalConnections"] == 1
    assert old.poll().status_code == 400
    assert old.post('42["ping"]').status_code == 400
    new.pong()  # and that did not hurt
    new.close()
    shared_server.wait_for_connections(0)


def test_a_waiting_poll_is_released_by_the_probe(shared_server: RunningServer, opens: Opens) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("mover")})
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(old.poll().text))
    waiting.start()
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    waiting.join(5)
    assert answers == ["6"]
    new.send("5")
    new.pong()


@pytest.mark.parametrize("round_", range(3))
def test_order_is_kept_while_notifications_flow_through_an_upgrade(
    shared_server: RunningServer, opens: Opens, round_: int
) -> None:
    user, total = f"flow-{round_}", 200
    old = polling(shared_server, opens)
    old.sign_in({"token": mint(user)})
    received: list[int] = []

    def keep(packets: list[str]) -> bool:
        received.extend(json.loads(packet[2:])[1]["n"] for packet in packets if packet.startswith("42"))
        return packets == ["6"]

    def publish() -> None:
        for number in range(total):
            shared_server.broadcast([user], {"n": number})

    publisher = threading.Thread(target=publish)
    publisher.start()
    probed = threading.Event()

    def poll() -> None:
        while not (keep(old.poll().text.split(RECORD_SEPARATOR)) and probed.is_set()):
            pass

    poller = threading.Thread(target=poll)
    poller.start()
    wait_for(lambda: len(received) > 10 * (round_ + 1), what="notifications")
    new = upgrade(shared_server, opens, old)
    probed.set()
    new.send("2probe")
    assert new.receive() == "3probe"
    poller.join(10)
    new.send("5")
    while len(received) < total:
        received.append(new.event()[1]["n"])
    publisher.join()
    assert received == list(range(total))


@pytest.mark.parametrize("packet", ["5", "2", "2prob", '42["ping"]', "3probe"])
def test_a_failed_probe_leaves_polling_as_it_was(shared_server: RunningServer, opens: Opens, packet: str) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("stays")})
    new = upgrade(shared_server, opens, old)
    new.send(packet)
    assert new.receive() is None
    old.pong()
    again = upgrade(shared_server, opens, old)
    again.send("2probe")
    assert again.receive() == "3probe"


def test_a_probe_that_breaks_off_leaves_polling_as_it_was(shared_server: RunningServer, opens: Opens) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("stays")})
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    new.close()
    wait_for(lambda: old.post('42["ping"]').status_code == 200 and "pong" in old.poll().text, 5, "polling to go on")


def test_a_session_upgrades_once(shared_server: RunningServer, opens: Opens, opens_raw: OpensRaw) -> None:
    old = polling(shared_server, opens)
    old.sign_in({"token": mint("once")})
    query = f"EIO=4&transport=websocket&sid={old.handshake['sid']}"
    new = upgrade(shared_server, opens, old)
    new.send("2probe")
    assert new.receive() == "3probe"
    assert opens_raw(shared_server, query=query).status == 400
    new.send("5")
    new.pong()
    assert opens_raw(shared_server, query=query).status == 400
    new.pong()


# Socket.IO


@over_both
@pytest.mark.parametrize("packet", ["40", "40{}", '40{"token":""}', "40/,", "40/,{}"])
def test_a_connect_is_answered_with_a_sid(shared_server: RunningServer, opens: Opens, transport: str, packet: str) -> None:
    client = opens(shared_server, transport)
    client.send(packet)
    answer = client.receive()
    assert isinstance(answer, str)
    assert answer.startswith("40{")
    assert json.loads(answer[2:])["sid"]


@over_both
@pytest.mark.parametrize("namespace", ["/admin", "/a/b", "/א"])
def test_other_namespaces_are_refused(shared_server: RunningServer, opens: Opens, transport: str, namespace: str) -> None:
    client = opens(shared_server, transport)
    client.send(f"40{namespace},{{}}")
    assert client.receive() == f'44{namespace},{{"message":"Invalid namespace"}}'
    client.sign_in({"token": mint("ada")})  # the default one is still there
    client.send(f"40{namespace},")
    assert client.receive() == f'44{namespace},{{"message":"Invalid namespace"}}'
    client.pong()


MALFORMED = [
    "4",
    "47",
    "4x",
    "42",
    "42{}",
    "42[]",
    "42[1]",
    "42[null]",
    "42[[]]",
    '42"ping"',
    '42["ping"',
    '42["ping"]]',
    "42['ping']",
    '42["ping",NaN]',
    "42-1[]",
    '42999999999999999999["ping"]',
    "43[]",
    "431{}",
    "44",
    '44{"message":"x"}',
    "45",
    '45["ping"]',
    '451["ping"]',
    '45999-["ping"]',
    '45-["ping"]',
    '421-["ping"]',
    "401",
    "40[]",
    '40"text"',
    "40null,",
    "41{}",
    "42" + "[" * 2000 + "]" * 2000,
    '42["ping",' + "[" * 500 + "]" * 500 + "]",
]


@over_both
@pytest.mark.parametrize("packet", MALFORMED, ids=lambda packet: packet[:16])
def test_a_malformed_packet_closes_the_connection_and_no_other(
    shared_server: RunningServer, opens: Opens, transport: str, packet: str
) -> None:
    bystander, client = opens(shared_server), opens(shared_server, transport)
    for connection in (bystander, client):
        connection.sign_in({"token": mint("ada")})
    client.send(packet)
    assert client.rest() == []
    shared_server.wait_for_connections(1)
    bystander.pong()


@over_both
@pytest.mark.parametrize(
    "packet", ['42["ping"]', '42["auth",{}]', "41", "431[]", '451-["ping",{"_placeholder":true,"num":0}]']
)
def test_a_packet_before_connect_closes(shared_server: RunningServer, opens: Opens, transport: str, packet: str) -> None:
    client = opens(shared_server, transport)
    client.send(packet)
    assert client.rest() == []


@over_both
def test_a_second_connect_closes(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("ada")})
    client.send("40" + json.dumps({"token": mint("ben")}))
    assert client.rest() == []
    shared_server.wait_for_connections(0)


@pytest.mark.parametrize(
    "name", ["connect", "disconnect", "disconnecting", "connect_error", "newListener", "removeListener"]
)
@over_both
def test_reserved_event_names_fake_nothing(shared_server: RunningServer, opens: Opens, transport: str, name: str) -> None:
    client = opens(shared_server, transport)
    user = f"faker-{name}-{transport}"
    client.sign_in({"token": mint(user)})
    before = len(shared_server.log())
    client.emit(name, "forged reason")
    assert client.rest() == []  # as on the Node.js server: an invalid packet
    shared_server.wait_for_connections(0)
    lines = [line for line in shared_server.log()[before:].splitlines() if "disconnected" in line]
    assert len(lines) == 1
    assert "forged" not in lines[0]


@over_both
def test_ping_is_answered_by_pong_and_where_asked_by_an_acknowledgement(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.emit("ping")
    assert client.receive() == '42["pong",null]'
    client.emit("ping", {"any": "thing"}, 5)
    assert client.receive() == '42["pong",null]'
    for number in (0, 7, 123456789):
        client.emit("ping", ack=number)
        assert sorted(str(client.receive()) for _ in range(2)) == ['42["pong",null]', f"43{number}[]"]


@over_both
def test_auth_may_be_acknowledged(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.emit("auth", {"userId": "ada", "jwt": mint("ada")}, ack=3)
    received = sorted(str(client.receive()) for _ in range(2))
    assert received[0].startswith('42["auth_success"')
    assert received[1] == "433[]"


@over_both
@pytest.mark.parametrize("packet", ["430[]", '43123["x",{}]', '461-5[{"_placeholder":true,"num":0}]'])
def test_an_acknowledgement_of_nothing_changes_nothing(
    shared_server: RunningServer, opens: Opens, transport: str, packet: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.send(packet)
    if packet.startswith("46"):
        client.send(b"\x01\x02")
    client.pong()


@over_both
def test_a_binary_event_waits_for_its_attachments(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("ada")})
    client.send('452-9["ping",{"_placeholder":true,"num":0},{"deep":[{"_placeholder":true,"num":1}]}]')
    client.send(b"\x00\x01\x02")
    client.send("3")  # a heartbeat may come between
    client.send(b"")
    assert sorted(str(client.receive()) for _ in range(2)) == ['42["pong",null]', "439[]"]
    client.send('451-["unknown",{"_placeholder":true,"num":0}]')
    client.send(b"\xff" * 1000)
    client.pong()


def test_attachments_in_one_payload(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.connect()
    attachment = "b" + base64.b64encode(b"\x00\x1e\xff").decode()
    parts = ['451-["ping",{"_placeholder":true,"num":0}]', attachment, '42["ping"]']
    assert client.post(RECORD_SEPARATOR.join(parts)).text == "ok"
    assert [client.receive(), client.receive()] == ['42["pong",null]'] * 2


def test_bytes_are_no_token(shared_server: RunningServer, opens: Opens) -> None:
    client = opens(shared_server)
    client.connect()
    client.send('451-["auth",{"userId":"ada","jwt":{"_placeholder":true,"num":0}}]')
    client.send(mint("ada").encode())
    assert client.refusal() == ("Invalid JWT format", "invalid_format")


@over_both
@pytest.mark.parametrize(
    "packets",
    [
        [b"attachment of nothing"],
        ['451-["ping",{"_placeholder":true,"num":0}]', '42["ping"]'],
        ['451-["ping",{"_placeholder":true,"num":1}]', b"x"],
        ['451-["ping",{"_placeholder":true,"num":-1}]', b"x"],
        ['451-["ping",{"_placeholder":true,"num":"0"}]', b"x"],
        ['451-["ping",{"_placeholder":true,"num":true}]', b"x"],
        ['451-["ping",{"_placeholder":true}]', b"x"],
    ],
)
def test_attachments_that_do_not_fit_close(
    shared_server: RunningServer, opens: Opens, transport: str, packets: list[Any]
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    for packet in packets:
        client.send(packet)
    assert client.rest() == []


@over_both
def test_a_client_may_disconnect(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("ada")})
    client.send("41")
    shared_server.wait_for_connections(0)
    assert shared_server.broadcast(["ada"], {"late": True}).json()["totalSockets"] == 0
    client.emit("auth", {"userId": "ada", "jwt": mint("ada")})  # a connection that has ended stays so
    time.sleep(0.05)
    assert shared_server.stats()["totalConnections"] == 0


def test_names_with_unicode_and_large_payloads_travel(shared_server: RunningServer, opens: Opens) -> None:
    user, text = "משתמש 😀", "ש" * 100_000
    for transport in TRANSPORTS:
        client = opens(shared_server, transport)
        client.sign_in({"token": mint(user), "userId": user})
        shared_server.broadcast([user], {"body": text})
        assert client.event()[1] == {"body": text}
        client.close()


# RFC 6455


def test_the_opening_handshake_is_that_of_the_rfc(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    raw = opens_raw(
        shared_server,
        headers={
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "WebSocket",
            "Sec-WebSocket-Extensions": "permessage-deflate",
            "Sec-WebSocket-Protocol": "chat",
        },
    )
    assert raw.status == 101
    assert raw.headers["upgrade"].lower() == "websocket"
    assert raw.headers["connection"].lower() == "upgrade"
    assert raw.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # section 1.3
    assert "sec-websocket-extensions" not in raw.headers
    assert "sec-websocket-protocol" not in raw.headers
    assert raw.text().startswith("0{")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Version": ""}, 426),
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Key": "!!!!"}, 400),
        ({"Connection": "keep-alive"}, 400),
    ],
    ids=str,
)
def test_a_bad_opening_handshake_is_refused(
    shared_server: RunningServer, opens_raw: OpensRaw, headers: dict[str, str], status: int
) -> None:
    raw = opens_raw(shared_server, headers=headers)
    assert raw.status == status
    if status == 426:
        assert raw.headers["sec-websocket-version"] == "13"


def test_a_websocket_elsewhere_is_not_found(shared_server: RunningServer) -> None:
    answer = requests.get(
        f"{shared_server.url}/elsewhere",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        },
        timeout=10,
    )
    assert answer.status_code == 404


def big(opcode: int, declared: int) -> bytes:
    """The header of a frame of this size, without any of its payload."""
    return struct.pack("!BBQ", 0x80 | opcode, 0xFF, declared)


VIOLATIONS = [
    ("unmasked", encode_frame(TEXT, b"3", mask=False), 1002),
    ("reserved bit", encode_frame(TEXT, b"3", reserved=4), 1002),
    ("unknown opcode", encode_frame(0x3, b""), 1002),
    ("unknown control", encode_frame(0xB, b""), 1002),
    ("fragmented ping", encode_frame(PING, b"", fin=False), 1002),
    ("long ping", encode_frame(PING, b"x" * 126), 1002),
    ("continuation of nothing", encode_frame(CONTINUATION, b"x"), 1002),
    ("message inside a message", encode_frame(TEXT, b"x", fin=False) + encode_frame(TEXT, b"x"), 1002),
    ("close of one byte", encode_frame(CLOSE, b"\x03"), 1002),
    ("close 1005", encode_frame(CLOSE, struct.pack("!H", 1005)), 1002),
    ("close 1006", encode_frame(CLOSE, struct.pack("!H", 1006)), 1002),
    ("close 999", encode_frame(CLOSE, struct.pack("!H", 999)), 1002),
    ("close 5000", encode_frame(CLOSE, struct.pack("!H", 5000)), 1002),
    ("size with the top bit", big(TEXT, 1 << 63), 1002),
    ("close reason not UTF-8", encode_frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
    ("not UTF-8", encode_frame(TEXT, b"42\xff\xfe"), 1007),
    ("half a surrogate", encode_frame(TEXT, b"42\xed\xa0\x80"), 1007),
    ("fragments not UTF-8", encode_frame(TEXT, b"42\xd7", fin=False) + encode_frame(CONTINUATION, b"x"), 1007),
    ("too big", big(TEXT, 65_537), 1009),
    ("far too big", big(BINARY, (1 << 63) - 1), 1009),
    (
        "fragments too big",
        encode_frame(TEXT, b"x" * 40_000, fin=False) + struct.pack("!BBH", CONTINUATION, 0xFE, 40_000),
        1009,
    ),
]


@pytest.mark.parametrize(("data", "code"), [case[1:] for case in VIOLATIONS], ids=[case[0] for case in VIOLATIONS])
def test_a_violation_is_closed_with_its_code(
    shared_server: RunningServer, opens_raw: OpensRaw, data: bytes, code: int
) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("violator"))
    raw.sock.sendall(data)
    assert raw.close_code() == code
    shared_server.wait_for_connections(0)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
def test_a_close_is_echoed(shared_server: RunningServer, opens_raw: OpensRaw, code: int) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("closer"))
    raw.sock.sendall(encode_frame(CLOSE, struct.pack("!H", code) + "להתראות".encode()))
    assert raw.close_code() == code
    shared_server.wait_for_connections(0)


def test_a_close_without_a_code_is_answered(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("closer"))
    raw.sock.sendall(encode_frame(CLOSE, b"") + encode_frame(TEXT, b'42["ping"]'))
    frame = raw.frame()
    assert frame is not None
    assert frame[0] == CLOSE
    assert frame[1][:2] in (b"", struct.pack("!H", 1000))
    assert raw.frame() is None


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff" * 62])
def test_a_ping_frame_is_answered_with_its_payload(
    shared_server: RunningServer, opens_raw: OpensRaw, payload: bytes
) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("pinger"))
    raw.sock.sendall(encode_frame(PONG, b"unasked"))
    raw.sock.sendall(
        encode_frame(TEXT, b'42["pi', fin=False) + encode_frame(PING, payload) + encode_frame(CONTINUATION, b'ng"]')
    )
    assert raw.frame() == (PONG, payload)
    assert raw.text() == '42["pong",null]'


def test_a_stream_may_be_cut_anywhere(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("slow"))
    raw.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in encode_frame(TEXT, '42["ping","שלום"]'.encode()):
        raw.sock.sendall(bytes((byte,)))
        time.sleep(0.001)
    assert raw.text() == '42["pong",null]'
    # Characters may be cut too, between fragments.
    text = '42["ping","שלום"]'.encode()
    raw.sock.sendall(
        b"".join(
            encode_frame(CONTINUATION if at else TEXT, text[at : at + 1], fin=at == len(text) - 1)
            for at in range(len(text))
        )
    )
    assert raw.text() == '42["pong",null]'


@pytest.mark.parametrize("size", [125, 126, 127, 65_535, 65_536])
def test_messages_of_every_length_encoding_travel_both_ways(
    shared_server: RunningServer, opens_raw: OpensRaw, size: int
) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("sizes"))
    raw.send('42["ping","' + "x" * (size - len('42["ping",""]')) + '"]')
    assert raw.text() == '42["pong",null]'
    shared_server.broadcast(["sizes"], {"t": "y" * size})
    assert json.loads(raw.text()[2:])[1] == {"t": "y" * size}


def test_bytes_right_behind_the_upgrade_request_are_not_lost(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    for count in (1, 30):
        packets = ["40" + json.dumps({"token": mint("eager")}), *['42["ping"]'] * count]
        raw = opens_raw(shared_server, behind=b"".join(encode_frame(TEXT, packet.encode()) for packet in packets))
        assert raw.text().startswith("0{")
        assert raw.text().startswith("40{")
        assert raw.text().startswith('42["auth_success"')
        assert [raw.text() for _ in range(count)] == ['42["pong",null]'] * count


def test_many_packets_at_once_are_handled_in_order(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("burst"))
    raw.sock.sendall(b"".join(encode_frame(TEXT, f'42{number}["ping"]'.encode()) for number in range(40)))
    numbers = [int(text[2:-2]) for _ in range(80) if (text := raw.text()).startswith("43")]
    assert numbers == list(range(40))


# TRANSPORTS


def test_a_transport_that_is_switched_off_is_refused_and_the_page_does_not_try_it(tmp_path: Path, opens: Opens) -> None:
    with running(tmp_path, TRANSPORTS="websocket", DEMO=1) as server:
        answer = server.get("/socket.io/?EIO=4&transport=polling")
        assert (answer.status_code, answer.json()) == (400, {"code": 0, "message": "Transport unknown"})
        opens(server, "websocket").sign_in({"token": mint("ada")})
        assert server.get("/demo/config.json").json()["transports"] == ["websocket"]


# TLS


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
    assert tls_server.broadcast(["nobody"], {"title": "x"}).json()["success"]


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
def test_plain_http_on_the_tls_port_hurts_nobody(tls_server: RunningServer) -> None:
    with socket.create_connection(("127.0.0.1", tls_server.port), timeout=10) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises((ConnectionError, AssertionError)):
            assert sock.recv(100)
    assert tls_server.get("/health").status_code == 200
