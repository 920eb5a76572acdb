"""Conformance with RFC 6455 on the wire."""

import json
import socket
import struct
import time

import pytest
import requests

from tests.integration.conftest import OpensRaw
from tests.integration.protocol import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    encode_frame,
)
from tests.servers import RunningServer, mint


def test_the_opening_handshake_is_as_in_the_rfc(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    raw = opens_raw(
        shared_server,
        headers={
            "Connection": "keep-alive, Upgrade",
            "Upgrade": "WebSocket",
            "Sec-WebSocket-Extensions": "permessage-deflate",
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
    ("offered", "answered"),
    [("chat", "chat"), ("p1, p2", "p1"), ("p1,p2", "p1"), (" , p1", "p1"), ('"p1"', None), ("p 1", None), (",", None)],
)
def test_the_first_offered_subprotocol_is_accepted_as_on_node_js(
    shared_server: RunningServer, opens_raw: OpensRaw, offered: str, answered: str | None
) -> None:
    raw = opens_raw(shared_server, headers={"Sec-WebSocket-Protocol": offered})
    assert raw.status == 101
    assert raw.headers.get("sec-websocket-protocol") == answered
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


def test_a_websocket_request_to_another_path_is_not_found(shared_server: RunningServer) -> None:
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


def test_a_stream_may_be_split_anywhere(shared_server: RunningServer, opens_raw: OpensRaw) -> None:
    raw = opens_raw(shared_server)
    raw.sign_in(mint("slow"))
    raw.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in encode_frame(TEXT, '42["ping","שלום"]'.encode()):
        raw.sock.sendall(bytes((byte,)))
        time.sleep(0.001)
    assert raw.text() == '42["pong",null]'
    # Characters may be split between fragments too.
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
