"""Packets of Engine.IO 4 and Socket.IO 5: as the protocol documents write them, and nothing hostile gets through."""

import base64
import json
from typing import Any

import engineio.packet
import orjson
import pytest
import socketio.packet
from hypothesis import example, given
from hypothesis import strategies as st

from socket_server.transport.socketio import packets
from socket_server.transport.socketio.packets import (
    ACK,
    BINARY_ACK,
    BINARY_EVENT,
    CONNECT,
    DISCONNECT,
    EVENT,
    MAX_ATTACHMENTS,
    MAX_JSON_DEPTH,
    MAX_PACKETS_PER_PAYLOAD,
    Packet,
    SocketPacket,
    attach,
    decode_payload,
    decode_socket_packet,
    encode_connect,
    encode_event,
    encode_notification,
    encode_open,
    encode_payload,
    wrap,
)

# Engine.IO, outwards


def test_the_open_packet_tells_the_session_in_milliseconds() -> None:
    opened = encode_open("lv_VI97HAXpY6yYWAAAC", ["websocket"], 25, 20, 1_000_000)
    assert opened.text[0] == "0"
    assert json.loads(opened.text[1:]) == {
        "sid": "lv_VI97HAXpY6yYWAAAC",
        "upgrades": ["websocket"],
        "pingInterval": 25_000,
        "pingTimeout": 20_000,
        "maxPayload": 1_000_000,
    }


def test_fractions_of_a_second_are_whole_milliseconds() -> None:
    opened = json.loads(encode_open("x", (), 0.25, 1.5, 1).text[1:])
    assert (opened["pingInterval"], opened["pingTimeout"], opened["upgrades"]) == (250, 1500, [])


@pytest.mark.parametrize(
    ("packet", "text"),
    [(packets.PING_PACKET, "2"), (packets.NOOP_PACKET, "6"), (packets.CLOSE_PACKET, "1"), (packets.PROBE_REPLY, "3probe")],
)
def test_the_short_packets_are_those_of_the_document(packet: Packet, text: str) -> None:
    assert packet.text == text
    assert packet.frame == b"\x81" + bytes([len(text)]) + text.encode()


def test_a_payload_joins_packets_by_the_record_separator() -> None:
    contents = [Packet(b"4hello"), Packet(b"2"), Packet(b"4world")]
    assert encode_payload(contents) == b"4hello\x1e2\x1e4world"


def test_binary_in_a_payload_is_base64() -> None:
    assert encode_payload([Packet(b"4hello"), Packet(b"\x01\x02\x03\x04", binary=True)]) == b"4hello\x1ebAQIDBA=="


def test_binary_over_websocket_is_a_binary_frame() -> None:
    packet = Packet(b"\x01\x02\x03\x04", binary=True)
    assert packet.frame == b"\x82\x04\x01\x02\x03\x04"
    assert packet.encode() == b"\x01\x02\x03\x04"
    assert packet.encode(b64=True) == "bAQIDBA=="


def test_a_text_packet_is_the_same_for_every_transport() -> None:
    packet = Packet("4שלום".encode())
    assert packet.encode() == packet.encode(b64=True) == packet.text == "4שלום"
    assert packet.frame == b"\x81" + bytes([len(packet.payload)]) + "4שלום".encode()


def test_a_packet_is_encoded_once() -> None:
    packet = Packet(b"4x")
    assert packet.frame is packet.frame
    assert packet.text is packet.text


@pytest.mark.parametrize(
    ("upstream", "text"),
    [
        (engineio.packet.Packet(engineio.packet.MESSAGE, "hello"), "4hello"),
        (engineio.packet.Packet(engineio.packet.PING), "2"),
        (engineio.packet.Packet(engineio.packet.CLOSE), "1"),
        (engineio.packet.Packet(engineio.packet.MESSAGE, b"\x01\x02"), "bAQI="),
    ],
)
def test_a_packet_of_the_stock_servers_is_taken_as_ours(upstream: engineio.packet.Packet, text: str) -> None:
    ours = wrap(upstream)
    assert isinstance(ours, Packet)
    assert ours.text == text
    assert wrap(ours) is ours


# Socket.IO, outwards


def test_the_answer_to_a_connect_carries_the_sid_and_the_pid() -> None:
    assert encode_connect("wZX3oN0bSVIhsaknAAAI", "Tq.17").text == '40{"sid":"wZX3oN0bSVIhsaknAAAI","pid":"Tq.17"}'


def test_an_event_is_an_array_of_its_name_and_arguments() -> None:
    assert encode_event("pong", None).text == '42["pong",null]'
    assert encode_event("x", {"he": "ש"}, 1, [True]).text == '42["x",{"he":"ש"},1,[true]]'


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (["foo"], '42["foo",null]'),
        (["x", "y"], '42["x","y",null]'),
        (["x", ["y"]], '42["x",["y"]]'),
        (["x", ""], '42["x","",null]'),
    ],
)
def test_no_client_takes_the_end_of_an_event_for_an_offset(event: list[Any], text: str) -> None:
    assert encode_event(*event).text == text


def test_a_notification_is_its_own_bytes_then_the_offset() -> None:
    raw = b'{ "a" : 1.0, "big":123456789012345678901234567890 }'
    packet = encode_notification(raw, 1_700_000_000_000_000)
    assert packet.payload == b'42["notification",' + raw + b',"1700000000000000"]'
    assert packet.frame.endswith(packet.payload)


# Engine.IO, inwards


def test_the_payload_of_the_document_is_read() -> None:
    assert decode_payload(b"4hello\x1e2\x1e4world") == ["4hello", "2", "4world"]
    assert decode_payload(b"4hello\x1ebAQIDBA==") == ["4hello", b"\x01\x02\x03\x04"]
    assert decode_payload("4שלום".encode()) == ["4שלום"]


@pytest.mark.parametrize("body", [b"", b"\x1e", b"4a\x1e", b"\x1e4a", b"4a\x1e\x1e4b"])
def test_an_empty_packet_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="empty packet"):
        decode_payload(body)


@pytest.mark.parametrize("body", [b"\xff", b"4\xed\xa0\x80", b"bA", b"b?", b"bAQ=\x00", "bé".encode(), b"bAQID BA=="])
def test_bad_utf_8_and_bad_base64_are_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_payload(body)


def test_too_many_packets_in_one_payload_are_refused() -> None:
    assert len(decode_payload(b"\x1e".join([b"4"] * MAX_PACKETS_PER_PAYLOAD))) == MAX_PACKETS_PER_PAYLOAD
    with pytest.raises(ValueError, match="more than"):
        decode_payload(b"\x1e".join([b"4"] * (MAX_PACKETS_PER_PAYLOAD + 1)))


@given(st.binary(max_size=80) | st.text(st.sampled_from("b4Aa=\x1e/+ "), max_size=40).map(str.encode))
def test_any_body_is_packets_or_a_value_error(body: bytes) -> None:
    try:
        found = decode_payload(body)
    except ValueError:
        return
    assert found
    assert all(isinstance(packet, (str, bytes)) for packet in found)


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\x1e", exclude_categories=["Cs"]), max_size=10).map(
            lambda text: "4" + text
        )
        | st.binary(max_size=20),
        min_size=1,
        max_size=10,
    )
)
def test_what_is_encoded_as_a_payload_is_decoded_again(contents: list[Any]) -> None:
    made = [Packet(each, binary=True) if isinstance(each, bytes) else Packet(each.encode()) for each in contents]
    assert decode_payload(encode_payload(made)) == contents


# Socket.IO, inwards: the examples of the protocol document


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0", SocketPacket(CONNECT, "/", None, None, 0)),
        ('0{"token":"123"}', SocketPacket(CONNECT, "/", None, {"token": "123"}, 0)),
        ("0/admin", SocketPacket(CONNECT, "/admin", None, None, 0)),
        ("0/admin,", SocketPacket(CONNECT, "/admin", None, None, 0)),
        ('0/admin,{"token":"123"}', SocketPacket(CONNECT, "/admin", None, {"token": "123"}, 0)),
        ("0/admin?a=b,", SocketPacket(CONNECT, "/admin", None, None, 0)),
        ("0/,{}", SocketPacket(CONNECT, "/", None, {}, 0)),
        ("1", SocketPacket(DISCONNECT, "/", None, None, 0)),
        ("1/admin,", SocketPacket(DISCONNECT, "/admin", None, None, 0)),
        ('2["foo"]', SocketPacket(EVENT, "/", None, ["foo"], 0)),
        ('2/admin,["bar"]', SocketPacket(EVENT, "/admin", None, ["bar"], 0)),
        ('212["foo"]', SocketPacket(EVENT, "/", 12, ["foo"], 0)),
        ('20["foo"]', SocketPacket(EVENT, "/", 0, ["foo"], 0)),
        ('2/admin,456["project:delete",123]', SocketPacket(EVENT, "/admin", 456, ["project:delete", 123], 0)),
        ('3/admin,13["bar"]', SocketPacket(ACK, "/admin", 13, ["bar"], 0)),
        ("312[]", SocketPacket(ACK, "/", 12, [], 0)),
        (
            '51-["baz",{"_placeholder":true,"num":0}]',
            SocketPacket(BINARY_EVENT, "/", None, ["baz", {"_placeholder": True, "num": 0}], 1),
        ),
        ('52-/admin,["baz",1]', SocketPacket(BINARY_EVENT, "/admin", None, ["baz", 1], 2)),
        ('51-/admin,15["x"]', SocketPacket(BINARY_EVENT, "/admin", 15, ["x"], 1)),
        ('61-15["bar"]', SocketPacket(BINARY_ACK, "/", 15, ["bar"], 1)),
        ('2["שלום",{"a":[1,2.5,null,true]}]', SocketPacket(EVENT, "/", None, ["שלום", {"a": [1, 2.5, None, True]}], 0)),
    ],
)
def test_a_packet_of_the_protocol_is_read(text: str, packet: SocketPacket) -> None:
    assert decode_socket_packet(text) == packet


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "7",
        "9[]",
        "a",
        "x2[]",
        "٢[]",
        "-1",
        "2",
        "25",
        "2{}",
        "2[]",
        "2[1]",
        "2[null]",
        "2[[]]",
        "2[{}]",
        '2"x"',
        '2["x"',
        '2["x"]y',
        '2["x"] 3["y"]',
        "2[NaN]",
        '2["x",NaN]',
        '2["x",Infinity]',
        '2["\\ud800"]',
        '2["\x01"]',
        '2/admin["x"]',
        '2admin,["x"]',
        "0[]",
        '0"token"',
        "0true",
        "0{",
        "1{}",
        "1[]",
        "3[]",
        '3["x"]',
        "312{}",
        "312",
        '4{"message":"x"}',
        "4",
        '5["x"]',
        '5-["x"]',
        '511["x"]',
        '6["x"]',
        '61-["x"]',
        '62-12{"a":1}',
        '21-["x"]',
        '31-12["x"]',
        "01-{}",
        '5-1-["x"]',
        '51.5-["x"]',
        '5 1-["x"]',
    ],
)
def test_what_the_protocol_does_not_allow_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode_socket_packet(text)


@pytest.mark.parametrize(
    "name", ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]
)
def test_a_client_cannot_send_the_events_of_a_connections_life(name: str) -> None:
    for text in (f'2["{name}"]', f'212["{name}",{{}}]', f'51-["{name}"]', f'2["\\u{ord(name[0]):04x}{name[1:]}"]'):
        with pytest.raises(ValueError, match="invalid payload"):
            decode_socket_packet(text)


def test_the_number_of_attachments_is_limited() -> None:
    assert decode_socket_packet(f'5{MAX_ATTACHMENTS}-["x"]').attachments == MAX_ATTACHMENTS
    for count in (MAX_ATTACHMENTS + 1, 10**9, 10**10, 10**30):
        with pytest.raises(ValueError, match=r".+"):
            decode_socket_packet(f'5{count}-["x"]')


def test_the_length_of_an_id_is_limited() -> None:
    assert decode_socket_packet(f'2{"9" * 15}["x"]').id == 10**15 - 1
    for digits in (16, 100, 5_000, 60_000):
        with pytest.raises(ValueError, match="too long"):
            decode_socket_packet(f'2{"9" * digits}["x"]')


def test_the_length_of_a_namespace_is_limited() -> None:
    assert decode_socket_packet("0/" + "a" * 255).namespace == "/" + "a" * 255
    for length in (256, 60_000):
        with pytest.raises(ValueError, match=r".+"):
            decode_socket_packet("0/" + "a" * length)


def nested(levels: int, opening: str = "[", closing: str = "]", middle: str = "1") -> str:
    return opening * levels + middle + closing * levels


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_json_is_read_down_to_a_depth_and_refused_below(opening: str, closing: str) -> None:
    step = opening.count("[") + opening.count("{")
    fits = (MAX_JSON_DEPTH - 1) // step  # the event's own array is a level
    assert decode_socket_packet(f'2["x",{nested(fits, opening, closing)}]').kind == EVENT
    for levels in (fits + 2, 200, 1_000, 1_024, 5_000, 30_000):
        with pytest.raises(ValueError, match=r".+"):
            decode_socket_packet(f'2["x",{nested(levels, opening, closing)}]')


def test_brackets_in_strings_and_side_by_side_are_no_depth() -> None:
    wide = ",".join(["[]"] * 500)
    assert decode_socket_packet(f'2["x",{wide}]').data == ["x", *[[]] * 500]
    assert decode_socket_packet('2["x","' + "[{" * 500 + '"]').data[1] == "[{" * 500


def test_what_was_accepted_can_be_searched_for_attachments() -> None:
    deepest = decode_socket_packet(f'51-["x",{nested(MAX_JSON_DEPTH - 1)}]')
    assert attach(deepest.data, [b""]) == deepest.data


any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), children, max_size=3)
    ),
    max_leaves=8,
)
event_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: name not in packets.RESERVED_EVENTS
)


def decoded(text: str) -> None:
    try:
        packet = decode_socket_packet(text)
    except ValueError:
        return
    assert packet.kind in "012356"
    assert packet.namespace.startswith("/")
    assert 0 <= packet.attachments <= MAX_ATTACHMENTS


@given(st.text() | st.text(st.sampled_from('012345-/,[]{}":x\\ntrue.e'), max_size=40))
@example('2["x",' + "[" * 60_000)
@example("0" + "{" * 60_000)
@example("2" + "[" * 60_000 + "]" * 60_000)
@example("5" + "1" * 60_000)
@example("0/" + "/" * 60_000)
@example('2["x",1' + "0" * 60_000 + "]")
@example('2["x",1e999]')
@example('2["x",' + "-" * 1_000)
def test_any_text_is_a_packet_or_a_value_error(text: str) -> None:
    decoded(text)


@given(st.sampled_from("0123456789"), st.sampled_from(["", "1-", "11-", "/", "/a,", "7", "1-/b,9"]), any_json)
def test_any_json_behind_any_head_is_a_packet_or_a_value_error(kind: str, head: str, data: Any) -> None:
    decoded(kind + head + json.dumps(data))


@given(
    event_names, st.lists(any_json, max_size=3), st.none() | st.integers(0, 10**15 - 1), st.sampled_from(["/", "/admin"])
)
def test_what_the_stock_implementation_encodes_is_read(
    name: str, arguments: list[Any], number: int | None, namespace: str
) -> None:
    for kind, data in ((EVENT, [name, *arguments]), *([(ACK, arguments)] if number is not None else [])):
        encoded = socketio.packet.Packet(int(kind), data=data, namespace=namespace, id=number).encode()
        assert decode_socket_packet(encoded) == SocketPacket(kind, namespace, number, data, 0)


@given(event_names, st.lists(st.binary(max_size=8), min_size=1, max_size=4), any_json, st.none() | st.integers(0, 99))
def test_what_the_stock_implementation_encodes_in_binary_is_put_together(
    name: str, blobs: list[bytes], other: Any, number: int | None
) -> None:
    data = [name, other, {"blobs": blobs}, blobs[0]]
    text, *attachments = socketio.packet.Packet(socketio.packet.EVENT, data=data, id=number).encode()
    packet = decode_socket_packet(text)
    assert (packet.kind, packet.id, packet.attachments) == (BINARY_EVENT, number, len(attachments))
    assert attach(packet.data, attachments) == data


@given(st.text(max_size=5), st.lists(any_json, max_size=3))
def test_events_outwards_are_read_by_the_stock_implementation(name: str, arguments: list[Any]) -> None:
    try:
        text = encode_event(name, *arguments).text
    except TypeError:
        assert any(0xD800 <= ord(character) < 0xE000 for character in name)
        return
    packet = socketio.packet.Packet(encoded_packet=text[1:])
    event = [name, *arguments]
    end = [None] if isinstance(event[-1], str) else []
    assert (text[0], packet.packet_type, packet.data) == ("4", socketio.packet.EVENT, event + end)
    assert packet.namespace in (None, "/")


# Attachments


def test_placeholders_are_replaced_wherever_they_stand() -> None:
    data = ["x", {"_placeholder": True, "num": 1}, {"a": [{"_placeholder": True, "num": 0}]}]
    assert attach(data, [b"zero", b"one"]) == ["x", b"one", {"a": [b"zero"]}]


@pytest.mark.parametrize("number", [-1, 1, 2**70, 0.0, "0", None, True, False, [], {}])
def test_a_placeholder_that_names_nothing_is_a_value_error(number: Any) -> None:
    with pytest.raises(ValueError, match="illegal attachment"):
        attach(["x", {"_placeholder": True, "num": number}], [b"zero"])


@pytest.mark.parametrize(
    "data", [{"_placeholder": 1, "num": 0}, {"_placeholder": "true", "num": 0}, {"_placeholder": False, "num": 0}]
)
def test_what_only_looks_like_a_placeholder_stays(data: Any) -> None:
    assert attach(["x", data], [b"zero"]) == ["x", data]


@given(any_json | st.dictionaries(st.sampled_from(["_placeholder", "num"]), st.booleans() | st.integers(-2, 3)))
def test_any_json_takes_its_attachments_or_is_a_value_error(data: Any) -> None:
    try:
        attach([data], [b"a", b"b"])
    except ValueError:
        pass


def test_base64_is_the_standard_alphabet() -> None:
    assert decode_payload(b"b" + base64.b64encode(b"\xfb\xff\xfe")) == [b"\xfb\xff\xfe"]
    assert orjson.loads(encode_event("a", 1).payload[2:]) == ["a", 1]
