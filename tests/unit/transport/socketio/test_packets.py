"""Socket.IO packets that the server sends."""

from typing import Any

import pytest
import socketio.packet
from hypothesis import given
from hypothesis import strategies as st

from socket_server.transport.socketio.packets import encode_connect, encode_event, encode_notification
from tests.unit.transport.socketio.any_json import any_json


def test_the_connect_reply_has_the_sid_and_the_pid() -> None:
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
def test_no_event_ends_in_a_string_that_a_client_would_store_as_an_offset(event: list[Any], text: str) -> None:
    assert encode_event(*event).text == text


def test_a_notification_is_the_bytes_of_the_back_end_and_the_offset() -> None:
    raw = b'{ "a" : 1.0, "big":123456789012345678901234567890 }'
    packet = encode_notification(raw, 1_700_000_000_000_000)
    assert packet.payload == b'42["notification",' + raw + b',"1700000000000000"]'
    assert packet.frame.endswith(packet.payload)


@given(st.text(max_size=5), st.lists(any_json, max_size=3))
def test_events_are_decoded_by_python_socketio(name: str, arguments: list[Any]) -> None:
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
