"""Engine.IO packets: as the protocol document writes them; what clients send is decoded or a ValueError."""

import json
from typing import Any

import engineio.packet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.engineio import packets
from socket_server.transport.engineio.packets import (
    MAX_PACKETS_PER_PAYLOAD,
    Packet,
    decode_payload,
    decode_text,
    encode_open,
    encode_payload,
    wrap,
)

# What the server sends


def test_the_open_packet_has_its_times_in_milliseconds() -> None:
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
def test_a_packet_of_python_engineio_is_wrapped(upstream: engineio.packet.Packet, text: str) -> None:
    ours = wrap(upstream)
    assert isinstance(ours, Packet)
    assert ours.text == text
    assert wrap(ours) is ours


# What clients send


def test_the_payloads_of_the_document_are_decoded() -> None:
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
def test_any_body_is_decoded_or_a_value_error(body: bytes) -> None:
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
def test_an_encoded_payload_is_decoded_to_the_same_packets(contents: list[Any]) -> None:
    made = [Packet(each, binary=True) if isinstance(each, bytes) else Packet(each.encode()) for each in contents]
    assert decode_payload(encode_payload(made)) == contents


@pytest.mark.parametrize(
    ("text", "packet"), [("b", b""), ("bAQIDBA==", b"\x01\x02\x03\x04"), ("b+//+", b"\xfb\xff\xfe"), ("4b", "4b")]
)
def test_a_text_packet_is_text_or_binary_in_the_standard_alphabet_of_base64(text: str, packet: str | bytes) -> None:
    assert decode_text(text) == packet
