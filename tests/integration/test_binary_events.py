"""Binary events on the wire: their attachments, and clients that send only binary.

Source: github.com/socketio/socket.io-protocol.
"""

import base64
from typing import Any

import pytest

from tests.integration.conftest import Opens, polling
from tests.integration.protocol import (
    RECORD_SEPARATOR,
    TRANSPORTS,
    WebSocketClient,
)
from tests.servers import RunningServer, mint

over_both = pytest.mark.parametrize("transport", TRANSPORTS)


@over_both
def test_a_binary_event_waits_for_its_attachments(shared_server: RunningServer, opens: Opens, transport: str) -> None:
    client = opens(shared_server, transport)
    client.sign_in({"token": mint("ada")})
    client.send('452-9["ping",{"_placeholder":true,"num":0},{"deep":[{"_placeholder":true,"num":1}]}]')
    client.send(b"\x00\x01\x02")
    client.send("3")  # an unexpected pong in between
    client.send(b"")
    assert sorted(str(client.receive()) for _ in range(2)) == ['42["pong",null]', "439[]"]
    client.send('451-["unknown",{"_placeholder":true,"num":0}]')
    client.send(b"\xff" * 1000)
    client.pong()


def test_attachments_in_one_payload(shared_server: RunningServer, opens: Opens) -> None:
    client = polling(shared_server, opens)
    client.sign_in({"token": mint("ada")})
    attachment = "b" + base64.b64encode(b"\x00\x1e\xff").decode()
    parts = ['451-["ping",{"_placeholder":true,"num":0}]', attachment, '42["ping"]']
    assert client.post(RECORD_SEPARATOR.join(parts)).text == "ok"
    assert [client.receive(), client.receive()] == ['42["pong",null]'] * 2


def test_bytes_are_no_token(shared_server: RunningServer, opens: Opens) -> None:
    client = opens(shared_server)
    client.sign_in({"token": mint("ada")})
    client.send('451-["auth",{"userId":"ada","jwt":{"_placeholder":true,"num":0}}]')
    client.send(mint("ada").encode())
    assert client.refusal() == ("Invalid JWT format", "invalid_format")


def test_attachments_in_base64_over_websocket_are_decoded(shared_server: RunningServer, opens: Opens) -> None:
    """As the official client sends them with the option `forceBase64`."""
    client = opens(shared_server)
    client.sign_in({"token": mint("ada")})
    client.send('451-4["ping",{"_placeholder":true,"num":0}]')
    client.send("b" + base64.b64encode(b"\x00\x1e\xff").decode())
    assert sorted(str(client.receive()) for _ in range(2)) == ['42["pong",null]', "434[]"]
    client.send('451-["ping",{"_placeholder":true,"num":0}]')
    client.send("bnot base64")
    assert client.rest() == []


@over_both
def test_a_client_with_a_binary_parser_is_refused_with_1003_and_a_log_line(
    shared_server: RunningServer, opens: Opens, transport: str
) -> None:
    client = opens(shared_server, transport)
    client.send(b"\x83\xa4type\x00\xa3nsp\xa1/\xa4data\xc0")  # CONNECT in MessagePack
    assert client.rest() == []
    if isinstance(client, WebSocketClient):
        assert client.close_code == 1003
    assert "socket.io-msgpack-parser" in shared_server.log()


@over_both
@pytest.mark.parametrize(
    "packets",
    [
        [b"attachment without a packet"],
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
    client.sign_in({"token": mint("ada")})
    for packet in packets:
        client.send(packet)
    assert client.rest() == []
