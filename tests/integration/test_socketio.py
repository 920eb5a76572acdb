"""Conformance with Socket.IO protocol 5 on the wire.

Source: github.com/socketio/socket.io-protocol.
"""

import json
import time

import pytest

from tests.integration.conftest import Opens
from tests.integration.protocol import (
    TRANSPORTS,
)
from tests.servers import RunningServer, mint

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


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
    client.sign_in({"token": mint("ada")})  # the default namespace still works
    client.send(f"40{namespace},")
    assert client.receive() == f'44{namespace},{{"message":"Invalid namespace"}}'
    client.pong()


MALFORMED = [
    "4",
    "47",
    "4x",
    "42{}",
    "42[]",
    "42[null]",
    "42[[]]",
    '42"ping"',
    '42["ping"',
    '42["ping"]]',
    "42['ping']",
    '42["ping",NaN]',
    "42-1[]",
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
    "packet",
    [
        "42[1]",
        '42[1,"x"]',
        "42[-1.5]",
        "427[1]",
        "42",
        '42["unknown"]',
        '429["unknown",{"a":[]}]',
        '42["unknown","\\ud83d"]',
        '42["ping\\ud800"]',
        '42["unknown",1e999]',
        '42["unknown",123456789012345678901234567890]',
        '4299999999999999999999["unknown"]',
        "43[]",
        '450-["unknown"]',
    ],
)
def test_an_event_that_is_well_formed_for_the_node_js_server_is_ignored(
    shared_server: RunningServer, opens: Opens, transport: str, packet: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.send(packet)
    client.pong()
    client.emit("auth", {"jwt": mint("ada")})
    client.success()
    client.send(packet)
    client.pong()


@over_both
def test_half_an_emoji_in_a_handshake_is_no_reason_to_close(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(shared_server, transport)
    client.send('40{"token":"' + mint("ada") + '","note":"\\ud83d"}')
    answer = client.receive()
    assert isinstance(answer, str)
    assert answer.startswith("40{")
    client.success()


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
def test_reserved_event_names_close_the_connection(
    shared_server: RunningServer, opens: Opens, transport: str, name: str
) -> None:
    client = opens(shared_server, transport)
    user = f"faker-{name}-{transport}"
    client.sign_in({"token": mint(user)})
    before = len(shared_server.log())
    client.emit(name, "forged reason")
    assert client.rest() == []
    shared_server.wait_for_connections(0)
    lines = [line for line in shared_server.log()[before:].splitlines() if "disconnected" in line]
    assert len(lines) == 1
    assert "forged" not in lines[0]


@over_both
def test_ping_is_answered_by_pong_and_an_acknowledgement_if_asked(
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
def test_a_refused_auth_event_is_acknowledged_before_the_disconnect(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.emit("auth", {"userId": "ada", "jwt": "bad"}, ack=3)
    packets = client.rest()
    assert str(packets[0]).startswith('42["auth_error"')
    assert packets[1:] == ["433[]", "41"]


@over_both
def test_a_binary_event_before_authentication_is_refused_with_its_acknowledgement(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(shared_server, transport)
    client.connect()
    client.send('451-8["ping",{"_placeholder":true,"num":0}]')
    assert client.rest() == ["438[]", "41"]
    assert "binary event before authentication" in shared_server.log()


@over_both
@pytest.mark.parametrize("packet", ["430[]", '43123["x",{}]', '461-5[{"_placeholder":true,"num":0}]'])
def test_an_unexpected_acknowledgement_changes_nothing(
    shared_server: RunningServer, opens: Opens, transport: str, packet: str
) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("ada")})
    client.send(packet)
    if packet.startswith("46"):
        client.send(b"\x01\x02")
    client.pong()


@over_both
def test_a_client_may_disconnect(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("ada")})
    client.send("41")
    shared_server.wait_for_connections(0)
    assert shared_server.broadcast(["ada"], {"late": True}).json()["totalSockets"] == 0
    client.emit("auth", {"userId": "ada", "jwt": mint("ada")})  # a connection that has ended
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
